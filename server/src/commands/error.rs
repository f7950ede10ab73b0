//! What clients are told when a command is refused, in Redis's words.

use crate::data::OpError;
use lattis_engine::store::StoreError;

use crate::net::request::Args;

/// How a command ended; an error takes back what it wrote and answered.
pub type CommandResult = Result<(), CommandError>;

/// A refusal: the line behind the `-`, beginning with its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// A fixed text.
    Fixed(&'static str),
    /// A text with something of the request in it.
    Text(Vec<u8>),
    /// The transaction would be larger than one may be: none of it can be.
    TooLarge(Vec<u8>),
}

impl CommandError {
    /// Arguments that do not fit together.
    pub const SYNTAX: CommandError = CommandError::Fixed("ERR syntax error");
    /// A number was expected.
    pub const NOT_INTEGER: CommandError =
        CommandError::Fixed("ERR value is not an integer or out of range");
    /// The key holds another type.
    pub const WRONG_TYPE: CommandError =
        CommandError::Fixed("WRONGTYPE Operation against a key holding the wrong kind of value");

    /// A refusal in words.
    pub fn text(text: impl Into<String>) -> CommandError {
        CommandError::Text(text.into().into_bytes())
    }

    /// A refusal of a word, which it ends with in quotes.
    pub fn of_word(text: &str, word: &[u8]) -> CommandError {
        CommandError::Text([text.as_bytes(), b" '", word, b"'"].concat())
    }

    /// A wrong number of arguments for that command.
    pub fn arity(name: &str) -> CommandError {
        CommandError::text(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// What EXEC answers if that is why it cannot be run.
    pub fn aborted(why: &CommandError) -> CommandError {
        let mut text = b"EXECABORT Transaction discarded because of: ".to_vec();
        text.extend_from_slice(why.line().strip_prefix(b"ERR ").unwrap_or(why.line()));
        CommandError::Text(text)
    }

    /// The line, without the leading `-`.
    pub fn line(&self) -> &[u8] {
        match self {
            CommandError::Fixed(text) => text.as_bytes(),
            CommandError::Text(text) | CommandError::TooLarge(text) => text,
        }
    }
}

/// Gives a refusal of the engine the name of the key it is about.
pub trait OnKey<T> {
    /// Names the key.
    fn on(self, key: &[u8]) -> Result<T, CommandError>;
}

impl<T> OnKey<T> for Result<T, OpError> {
    fn on(self, key: &[u8]) -> Result<T, CommandError> {
        self.map_err(|error| refusal(&error, key))
    }
}

fn refusal(error: &OpError, key: &[u8]) -> CommandError {
    match error {
        OpError::WrongType => CommandError::WRONG_TYPE,
        OpError::NotInteger => CommandError::NOT_INTEGER,
        OpError::HashNotInteger => CommandError::Fixed("ERR hash value is not an integer"),
        OpError::Overflow => CommandError::Fixed("ERR increment or decrement would overflow"),
        OpError::Derived(operator) => {
            let mut text = b"READONLY '".to_vec();
            text.extend_from_slice(key);
            text.extend_from_slice(format!("' is derived by {operator}.BIND").as_bytes());
            CommandError::Text(text)
        }
        OpError::Building(_) => CommandError::text(format!("LOADING {error}")),
        OpError::Busy => CommandError::Fixed("BUSYKEY Target key name already exists."),
        OpError::Binding(text) => CommandError::text(format!("ERR {text}")),
        OpError::TooLarge(_) | OpError::TooManyBytes(_) => {
            CommandError::TooLarge(format!("ERR {error}").into_bytes())
        }
        OpError::Store(error) => store_refusal(error),
    }
}

/// What a client is told whose command the store could not carry out.
pub fn store_refusal(error: &StoreError) -> CommandError {
    match error {
        StoreError::Full(_) => {
            CommandError::Fixed("MISCONF Errors writing to the AOF file: No space left on device")
        }
        StoreError::Unknown(_) => {
            CommandError::text(format!("MISCONF Errors writing to the AOF file: {error}"))
        }
        StoreError::Corrupt(_) | StoreError::Unopened(_) => {
            CommandError::text(format!("ERR storage: {error}"))
        }
    }
}

/// Most bytes of a request that an error repeats.
const QUOTED: usize = 128;

/// What Redis prints of an argument in an error: it ends at its first zero byte.
pub(super) fn c_string(argument: &[u8]) -> &[u8] {
    argument.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(super) fn unknown_command(args: Args<'_>) -> CommandError {
    let name = args.at(0);
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(name.get(..QUOTED).unwrap_or(name));
    text.extend_from_slice(b"', with args beginning with: ");
    let mut quoted = 0;
    for arg in args.from(1) {
        if quoted >= QUOTED {
            break;
        }
        let arg = c_string(arg);
        let arg = arg.get(..QUOTED - quoted).unwrap_or(arg);
        text.push(b'\'');
        text.extend_from_slice(arg);
        text.extend_from_slice(b"' ");
        quoted += arg.len() + 3;
    }
    CommandError::Text(text)
}

pub(super) fn unknown_subcommand(args: Args<'_>) -> CommandError {
    let name = args.at(1);
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(name.get(..QUOTED).unwrap_or(name));
    text.extend_from_slice(b"'. Try ");
    text.extend_from_slice(&args.at(0).to_ascii_uppercase());
    text.extend_from_slice(b" HELP.");
    CommandError::Text(text)
}
