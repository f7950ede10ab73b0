//! WATCH: which clients wait to hear that which keys have changed.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use lattis_engine::Changed;

use crate::session::Session;

/// Watched keys and the clients whose watch has been broken.
#[derive(Debug, Default)]
pub struct WatchTable {
    /// By db and key: who watches it, and whether it was there then.
    keys: HashMap<u16, HashMap<Bytes, BTreeMap<u64, bool>>>,
    broken: HashSet<u64>,
}

impl WatchTable {
    /// Whether nobody watches anything, so that changes need not be tracked.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a key to a client's watch. What was there when it was first watched counts.
    pub fn watch(&mut self, session: &mut Session, db: u16, key: &[u8], existed: bool) {
        let key = Bytes::copy_from_slice(key);
        let Entry::Vacant(place) = session.watched.entry((db, key.clone())) else { return };
        place.insert(existed);
        self.keys.entry(db).or_default().entry(key).or_default().insert(session.id, existed);
    }

    /// Ends a client's watch. Cost: what it watches.
    pub fn unwatch(&mut self, session: &mut Session) {
        for ((db, key), _) in std::mem::take(&mut session.watched) {
            let Some(keys) = self.keys.get_mut(&db) else { continue };
            if let Some(clients) = keys.get_mut(&key) {
                clients.remove(&session.id);
                if clients.is_empty() {
                    keys.remove(&key);
                }
            }
            if keys.is_empty() {
                self.keys.remove(&db);
            }
        }
        self.broken.remove(&session.id);
    }

    /// Notes what has changed.
    pub fn note(&mut self, changed: &Changed) {
        match changed {
            Changed::Key(db, key) => self.changed(*db, key),
            Changed::Db(db) => self.cleared(*db),
        }
    }

    /// Notes that a key has changed.
    fn changed(&mut self, db: u16, key: &[u8]) {
        if let Some(clients) = self.keys.get(&db).and_then(|keys| keys.get(key)) {
            self.broken.extend(clients.keys());
        }
    }

    /// Notes that all keys of a db are gone that were there.
    fn cleared(&mut self, db: u16) {
        let keys = self.keys.get(&db).into_iter().flatten();
        let were_there =
            keys.flat_map(|(_, clients)| clients.iter().filter(|(_, existed)| **existed));
        self.broken.extend(were_there.map(|(client, _)| client));
    }

    /// Whether a key that the client watches has changed.
    pub fn is_broken(&self, session: &Session) -> bool {
        self.broken.contains(&session.id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn changes_break_the_watch_of_those_who_watch() {
        let mut one = Session::new(1, Default::default(), Instant::now());
        let mut two = Session::new(2, Default::default(), Instant::now());
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
    /// As many as these would take minutes if each were compared with all others.
    #[test]
    fn many_keys_and_many_clients_are_watched() {
        const MANY: u32 = 300_000;
        let start = std::time::Instant::now();
        let mut table = WatchTable::default();
        let mut one = Session::new(0, Default::default(), Instant::now());
        for key in 0..MANY {
            table.watch(&mut one, 0, &key.to_be_bytes(), true);
            table.watch(&mut one, 0, &key.to_be_bytes(), false);
        }
        assert_eq!(one.watched.len(), MANY as usize);
        assert!(one.watched.values().all(|existed| *existed));
        let mut all: Vec<Session> = (0..u64::from(MANY))
            .map(|id| {
                let mut session = Session::new(id + 1, Default::default(), start);
                table.watch(&mut session, 0, b"shared", true);
                session
            })
            .collect();
        table.unwatch(&mut one);
        all.iter_mut().for_each(|session| table.unwatch(session));
        assert!(table.is_empty());
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    }
}
