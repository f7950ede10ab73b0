//! WATCH: which clients wait to hear that which keys have changed.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::session::{Session, Watched};

/// Watched keys and the clients whose watch has been broken.
#[derive(Debug, Default)]
pub struct WatchTable {
    keys: HashMap<u16, HashMap<Bytes, Vec<u64>>>,
    broken: HashSet<u64>,
}

impl WatchTable {
    /// Whether nobody watches anything, so that changes need not be tracked.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a key to a client's watch.
    pub fn watch(&mut self, session: &mut Session, db: u16, key: &[u8], existed: bool) {
        if session.watched.iter().any(|w| w.db == db && w.key == key) {
            return;
        }
        let key = Bytes::copy_from_slice(key);
        self.keys.entry(db).or_default().entry(key.clone()).or_default().push(session.id);
        session.watched.push(Watched { db, key, existed });
    }

    /// Ends a client's watch.
    pub fn unwatch(&mut self, session: &mut Session) {
        for watched in session.watched.drain(..) {
            let Some(keys) = self.keys.get_mut(&watched.db) else { continue };
            if let Some(clients) = keys.get_mut(&watched.key) {
                clients.retain(|id| *id != session.id);
                if clients.is_empty() {
                    keys.remove(&watched.key);
                }
            }
            if keys.is_empty() {
                self.keys.remove(&watched.db);
            }
        }
        self.broken.remove(&session.id);
    }

    /// Notes that a key has changed.
    pub fn changed(&mut self, db: u16, key: &[u8]) {
        if let Some(clients) = self.keys.get(&db).and_then(|keys| keys.get(key)) {
            self.broken.extend(clients);
        }
    }

    /// Whether a key that the client watches has changed.
    pub fn is_broken(&self, session: &Session) -> bool {
        self.broken.contains(&session.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_break_the_watch_of_those_who_watch() {
        let address = ([127, 0, 0, 1], 1).into();
        let mut one = Session::new(1, address, address);
        let mut two = Session::new(2, address, address);
        let mut table = WatchTable::default();
        table.watch(&mut one, 0, b"k", true);
        table.watch(&mut one, 0, b"k", true);
        table.watch(&mut two, 1, b"k", true);
        table.changed(0, b"other");
        assert!(!table.is_broken(&one) && !table.is_broken(&two));
        table.changed(0, b"k");
        assert!(table.is_broken(&one) && !table.is_broken(&two));
        table.unwatch(&mut one);
        assert!(!table.is_broken(&one));
        table.changed(1, b"k");
        assert!(table.is_broken(&two));
        table.unwatch(&mut two);
        assert!(table.is_empty());
    }
}
