//! What the command line looks like. Owns words and help; does nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps folders of several computers the same, without a server.
///
/// On one computer, `clearskies share DIR` prints an access code; on another,
/// `clearskies attach CODE DIR` joins with it. From then on both folders stay the
/// same, whichever side changes what.
#[derive(Debug, Parser)]
#[command(name = "clearskies", version, verbatim_doc_comment)]
pub(crate) struct Cli {
    /// Where this node keeps its state [default: ~/.local/share/clearskies]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the daemon
    Start(Start),
    /// Stop the daemon, and wait until it is gone
    Stop,
    /// Stop the daemon if it runs, and start it again
    Restart(Listen),
    /// Show how far each share is
    Status(Status),
    /// Print the daemon's log
    Logcat,
    /// Print the end of the daemon's log, and what comes
    Logtail,
    /// Stop all transfers until resumed
    Pause,
    /// Go on with transfers
    Resume,
    /// Make a share of a folder, without an access code yet
    Create {
        /// An existing folder
        path: PathBuf,
    },
    /// List the shares
    List,
    /// Print an access code for a folder, which becomes a share if it is none
    Share(Share),
    /// Join a share with an access code
    Attach(Attach),
    /// End sharing of a folder here; its files stay
    Detach {
        /// The share's folder
        path: PathBuf,
    },
    /// Try to reach a peer at an address, now and again later
    Connect {
        /// Where it listens
        #[arg(value_name = "HOST:PORT")]
        peer: String,
    },
    /// List the peers
    Peers,
    /// List conflict files, or decide about one
    Conflicts(Conflicts),
    /// List deletions that are held back because they are so many, or decide about them
    Deletions(Deletions),
    /// Bring back a file or directory that sync replaced or deleted; without one, list what can come back
    Restore(Restore),
    /// Say why a file is not in step
    Why {
        /// A path in a share
        path: PathBuf,
    },
    /// Show or change settings
    Config {
        /// The setting; all if left out
        key: Option<String>,
        /// Its new value
        value: Option<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Listen {
    /// TCP port to listen on, 0 for any that is free [default: that of the last run]
    #[arg(long, value_name = "N")]
    pub(crate) listen_port: Option<u16>,
    /// Do not look for peers on the local network
    #[arg(long)]
    pub(crate) no_lan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Stay in the foreground, and log to standard error too
    #[arg(long)]
    pub(crate) no_fork: bool,
    /// Started by another one of ours
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
    #[command(flatten)]
    pub(crate) listen: Listen,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// As JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the progress until all is in step
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Share {
    /// An existing folder
    pub(crate) path: PathBuf,
    /// What the holder of the code may do
    #[arg(long, value_enum, default_value_t = Mode::ReadWrite)]
    pub(crate) mode: Mode,
    /// Print a link that says where this computer is, so that no discovery is needed
    #[arg(long)]
    pub(crate) link: bool,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Read and change everything
    #[value(name = "read-write", aliases = ["rw", "read_write"])]
    ReadWrite,
    /// Read everything, change nothing (not there yet)
    #[value(name = "read-only", aliases = ["ro", "read_only"])]
    ReadOnly,
    /// Keep encrypted copies, without being able to read them (not there yet)
    #[value(name = "untrusted", aliases = ["un"])]
    Untrusted,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The access code, or the link that holds it
    pub(crate) code: String,
    /// The folder; made if it is missing
    pub(crate) path: PathBuf,
    /// If the folder has contents: unite them with the share's; what differs under one name becomes a conflict file
    #[arg(long, conflicts_with = "replace")]
    pub(crate) merge: bool,
    /// If the folder has contents: the share's win, and what differs goes to the archive
    #[arg(long)]
    pub(crate) replace: bool,
    /// Where a member of the share is, if it cannot be found otherwise; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT")]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Conflicts {
    /// Only those of this share
    #[arg(conflicts_with_all = ["keep", "drop"])]
    pub(crate) path: Option<PathBuf>,
    /// Put this conflict file in place of the file that it lost to
    #[arg(long, value_name = "FILE", conflicts_with = "drop")]
    pub(crate) keep: Option<PathBuf>,
    /// Delete this conflict file
    #[arg(long, value_name = "FILE")]
    pub(crate) drop: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Deletions {
    /// The share; may be left out if only one holds deletions back
    pub(crate) path: Option<PathBuf>,
    /// Delete the files on the other computers too
    #[arg(long, conflicts_with = "restore")]
    pub(crate) confirm: bool,
    /// Bring the files back here
    #[arg(long)]
    pub(crate) restore: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The path that the file or directory had, or a share to list
    pub(crate) path: Option<PathBuf>,
    /// Which of its versions, by its folder in the list [default: the newest]
    #[arg(long, value_name = "NAME")]
    pub(crate) folder: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check(words: &str) -> String {
        match Cli::try_parse_from(words.split(' ')) {
            Ok(cli) => format!("{:?}", cli.command),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help() {
        let mut command = Cli::command();
        command.build();
        let mut text = command.render_long_help().to_string();
        for subcommand in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            text.push_str(&format!("\n\n=== {}\n", subcommand.get_name()));
            text.push_str(&subcommand.render_help().to_string());
        }
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn words() {
        let shown: Vec<String> = [
            "clearskies start --no-fork --listen-port 22400 --no-lan",
            "clearskies restart",
            "clearskies --home /h status --json",
            "clearskies status --json --home /h",
            "clearskies share /d",
            "clearskies share /d --mode=read-write --link",
            "clearskies share /d --mode rw",
            "clearskies share /d --mode=ro",
            "clearskies share /d --mode=un",
            "clearskies share /d --mode=owner",
            "clearskies attach SYNC /d --merge --peer a:1 --peer b:2",
            "clearskies attach SYNC /d --merge --replace",
            "clearskies attach SYNC",
            "clearskies conflicts --keep /d/a --drop /d/b",
            "clearskies conflicts --keep /d/a",
            "clearskies deletions /d --confirm",
            "clearskies deletions --confirm --restore",
            "clearskies restore /d/a --folder x",
            "clearskies config a b",
            "clearskies start --listen-port 65536",
            "clearskies dance",
            "clearskies",
            "clearskies --version",
        ]
        .iter()
        .map(|words| format!("{words}\n    {}", check(words)))
        .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }
}
