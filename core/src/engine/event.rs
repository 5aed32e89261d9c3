//! What the engine tells whoever runs it.

use alloc::string::String;

use crate::engine::command::{CommandError, Reply};
use crate::ids::CommandId;

/// News.
#[derive(Clone, Debug)]
pub enum Event {
    /// A command ended.
    Done {
        /// The command.
        id: CommandId,
        /// How.
        result: Result<Reply, CommandError>,
    },
    /// Something that the user should know, said once: a conflict, a copied home, a clock that is wrong.
    Notice {
        /// The share's path, if it concerns one.
        share: Option<String>,
        /// A sentence.
        message: String,
    },
    /// The engine has stored everything after [`Command::Stop`]; the host may end.
    ///
    /// [`Command::Stop`]: crate::engine::command::Command::Stop
    Stopped,
}
