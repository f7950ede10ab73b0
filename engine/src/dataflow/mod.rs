//! Dataflow: keys whose value is a function of other keys.
//!
//! A *binding* makes its target a view of its sources. The binding is replicated data (a register row
//! under the target); the view is not: every node derives it from its own converged rows, one row
//! change at a time, in the same step and the same batch. What flows is weighted visible elements
//! (Z-sets: Budiu et al., "DBSP", 2023): +1 when an element appears in a source, -1 when it ceases,
//! never a count of dots. A target keeps the sum of weights per element and shows those above 0.
//!
//! Which bindings are active is a function of the binding rows ([`graph`]), so it is the same at every
//! node however the definitions arrived.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};
use crate::crdt::TypeRecord;
use crate::name::Slot;
use crate::row::Row;

pub mod expr;
pub(crate) mod graph;
pub mod ops;

pub(crate) static TYPE: TypeRecord = TypeRecord {
    slot: Slot::BINDING,
    name: "binding",
    kind: None,
    single: true,
    counts: false,
    register: false,
    elements: false,
    read: Row::shown,
    validate: |payload| Definition::decode(payload).map(drop),
    sample: |seed| {
        let source = Bytes::from(format!("source{seed}"));
        let definition = Definition {
            operator: "UNION".into(),
            sources: vec![source.clone(), source],
            expression: String::new(),
        };
        definition.encode().to_vec()
    },
};

/// Sources of one binding at most.
pub const MAX_SOURCES: usize = 128;

/// Bindings at one node at most; one more is refused where it is defined.
pub const MAX_BINDINGS: usize = 10_000;

/// What a binding says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// A name of [`ops::OPERATORS`].
    pub operator: String,
    /// Keys of the target's db, in the operator's order.
    pub sources: Vec<Bytes>,
    /// CEL, empty if the operator takes none.
    pub expression: String,
}

impl Definition {
    /// The payload of a binding row.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.bytes(self.operator.as_bytes());
        out.varint(self.sources.len() as u64);
        for source in &self.sources {
            out.bytes(source);
        }
        out.bytes(self.expression.as_bytes());
        out.finish()
    }

    /// Reads a payload. Says nothing about whether the operator exists or the expression compiles.
    pub fn decode(payload: &[u8]) -> Result<Definition, CodecError> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| CodecError::Invalid("binding"))
        };
        let mut input = Reader::new(payload);
        let operator = text(input.bytes()?)?;
        let mut sources = Vec::new();
        for _ in 0..input.count(1)? {
            sources.push(Bytes::copy_from_slice(input.bytes()?));
        }
        let expression = text(input.bytes()?)?;
        input.end()?;
        Ok(Definition { operator, sources, expression })
    }
}

/// A change of a set: +1 when the element became visible, -1 when it ceased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The element.
    pub element: Bytes,
    /// How much more often it is there.
    pub weight: i64,
}
