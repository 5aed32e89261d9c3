//! Sentences that say why a path is not in step (`why PATH`, sync.md). They take the plan's word and add what stands
//! in the way; they decide nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::files::path::{PathError, RelPath};
use crate::files::plan::{Reason, Step};
use crate::io::disk::DiskError;

/// What stands in the way beside what the plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The last disk operation on the path failed.
    Disk(DiskError),
    /// The path is none that can exist in a share.
    Path(PathError),
    /// Its name is no text that can be synced.
    UnusableName,
    /// Its directory could not be listed.
    Unobserved,
    /// The share is paused, or in a soft error; the sentence says which.
    Share(String),
    /// The path's content was never received in full, and no connected peer has it.
    NoSource,
    /// What all peers sent does not match the record's SHA-256.
    WrongContent,
    /// It would bring something into the archive, which is full.
    ArchiveFull,
    /// Its content is needed for this file, which does not have it yet.
    NeededFor(RelPath),
    /// Its delete is held back, because so many paths are gone.
    DeleteHeld,
    /// It keeps changing, and is sent when it is quiet.
    Changing,
    /// A local change that this peer may not send.
    ReadOnly,
    /// A socket, pipe or device.
    SpecialFile,
}

/// Sentences for a path: what is to be done next, then what stands in the way. A path that is in step has one.
pub fn why(step: &Step, problems: &[Problem]) -> Vec<String> {
    let in_step = *step == Step::Nothing;
    let first = (!in_step || problems.is_empty()).then(|| step_sentence(step));
    first.into_iter().chain(problems.iter().map(problem_sentence)).collect()
}

fn step_sentence(step: &Step) -> String {
    let sentence = match step {
        Step::Nothing => "It is in step.",
        Step::Adopt { .. } | Step::Forget | Step::KeepImplied => {
            "It is as it should be; that is about to be noted."
        }
        Step::SetMeta { .. } => "Its content is right; its permissions or time are about to be set.",
        Step::MakeDir { .. } => "The directory is about to be made here.",
        Step::PutLink { target, .. } => return format!("The link to \"{target}\" is about to be made here."),
        Step::BringFile { size, replaces: None, .. } => {
            return format!("Its content ({size} bytes) is being fetched.");
        }
        Step::BringFile { size, .. } => {
            return format!("A newer version ({size} bytes) is being fetched; this one goes to the archive.");
        }
        Step::MoveTo { to, .. } => return format!("It was renamed to \"{to}\" and is about to follow."),
        Step::Remove { .. } => "It was deleted elsewhere and is about to go to the archive.",
        Step::RemoveDir { .. } => "The directory was deleted elsewhere and goes as soon as it is empty.",
        Step::LocalChange => "It was changed here, and the change is about to be recorded.",
        Step::Conflict => {
            "It was changed here and elsewhere at once; this version is about to become a conflict file."
        }
        Step::Rewrite => {
            "It was deleted elsewhere by somebody who had not seen this version; this version is about to come back."
        }
        Step::Wait(reason) => reason_sentence(*reason),
    };
    String::from(sentence)
}

fn reason_sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::Unwanted => "It is ignored or not selected here, so it is left alone.",
        Reason::OnDemand => "Its content is not here; it is fetched when you ask for it.",
        Reason::NotCaughtUp => {
            "What was found here is compared with the club once a member was reached that knows what the share holds."
        }
        Reason::NotKnown => {
            "A change that this one builds on has not arrived yet; it goes on when that does, or after an hour."
        }
        Reason::Hidden => {
            "Two files, or a file and a directory, have this name; a peer that may write is about to rename one."
        }
        Reason::TargetTaken => {
            "It was renamed elsewhere, and something else still stands at the new place here."
        }
        Reason::DirInTheWay => {
            "A directory stands here that holds files which are not synced; move them away to make room."
        }
        Reason::Unusable => "The club's record of it is none that this program can make into a file.",
    }
}

fn problem_sentence(problem: &Problem) -> String {
    let sentence = match problem {
        Problem::Disk(error) => disk_sentence(*error),
        Problem::Path(error) => error.sentence(),
        Problem::UnusableName => "Its name is not UTF-8 or not allowed; rename it to have it synced.",
        Problem::Unobserved => {
            "Its directory could not be read, so nothing is said of it; check the directory's permissions."
        }
        Problem::Share(sentence) => return sentence.clone(),
        Problem::NoSource => "No connected peer has its content; it comes when one that has it is connected.",
        Problem::WrongContent => {
            "What was received did not match its SHA-256 and was thrown away; it is asked for again."
        }
        Problem::ArchiveFull => {
            "What was replaced or deleted within the last day fills the archive, and the volume has little space left; \
             it waits until the oldest of that is a day old. Free some space to let it go on now."
        }
        Problem::NeededFor(path) => {
            return format!(
                "What stands here is needed for \"{path}\", which is not in place yet; it goes when that is."
            );
        }
        Problem::DeleteHeld => {
            "Very many files are gone at once, so their deletion is held; `clearskies deletions` decides about it."
        }
        Problem::Changing => "It keeps changing; it is recorded when it has been quiet for a moment.",
        Problem::ReadOnly => {
            "This peer may only read, so the change made here is not sent and will be put back."
        }
        Problem::SpecialFile => "It is a socket, a pipe or a device; these are never synced.",
    };
    String::from(sentence)
}

fn disk_sentence(error: DiskError) -> &'static str {
    match error {
        DiskError::NotFound => {
            "It, or a directory on the way to it, vanished meanwhile; it is looked at again."
        }
        DiskError::Exists => "Something else appeared in its place; it is looked at again.",
        DiskError::NotEmpty => "The directory is not empty, so it stays.",
        DiskError::WrongKind => {
            "A file or a link stands where a directory is needed, or the other way round."
        }
        DiskError::Denied => {
            "The system does not permit it; check the permissions of the file and its directory."
        }
        DiskError::OtherVolume => {
            "Another volume is mounted there, or above it; files on it are not synced. Unmount it, or share it by \
             itself."
        }
        DiskError::NoSpace => "The volume or your quota is full; free some space.",
        DiskError::BadName => "The file system here cannot hold this name; rename it on another computer.",
        DiskError::RootMissing => {
            "The share's folder is gone, or is not the share's; nothing is deleted meanwhile."
        }
        DiskError::Changed => "It changed while it was read or replaced; it is looked at again.",
        DiskError::Io => "The disk reported an error; the log has the details.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::path;
    use crate::ids::Uuid;

    #[test]
    fn sentences() {
        let step = Step::Wait(Reason::OnDemand);
        assert_eq!(why(&Step::Nothing, &[]), ["It is in step."]);
        assert_eq!(why(&step, &[]).len(), 1);
        let problems = [Problem::Disk(DiskError::NoSpace), Problem::NoSource];
        assert_eq!(why(&step, &problems).len(), 3);
        // What is not in step for a reason outside the plan is not called in step.
        assert_eq!(
            why(&Step::Nothing, &problems[..1]),
            ["The volume or your quota is full; free some space."]
        );
        let to = Step::MoveTo {
            to: path("b/c"),
            stamp: crate::files::fixture::stamp(&crate::files::fixture::file(1), 1),
        };
        assert!(why(&to, &[])[0].contains("\"b/c\""));
        let made = Step::MakeDir { uuid: Some(Uuid([1; 16])), mode: None };
        assert!(why(&made, &[])[0].ends_with('.'));
    }
}
