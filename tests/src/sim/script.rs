//! A history as plain text: machines, a seed for chance, and a list of steps, one a line. The player
//! ([`history`](super::history)) says what each step does; this file only reads and writes them.

use std::fmt;
use std::str::FromStr;

/// Machines of a script, at most.
pub const MACHINES_MAX: usize = 6;

/// One thing that happens. Which of the fields count depends on the verb.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub verb: Verb,
    /// On which machine.
    pub node: usize,
    /// With which other machine.
    pub other: usize,
    /// A path of the share; `*7` means the seventh of those that are there (counted around).
    pub path: String,
    /// A second path.
    pub to: String,
    /// A number.
    pub number: u64,
    /// Bytes that a content has beside its number.
    pub size: u64,
}

/// Declares the verbs, each with its word and the fields that follow it: `n` machine, `o` other machine, `p` path,
/// `t` second path, `c` number, `s` size.
macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident $word:literal $fields:literal,)*) => {
        /// What a step does.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Verb { $($(#[$doc])* $name,)* }

        impl Verb {
            /// All of them, each with its word and fields.
            pub const ALL: &'static [(Verb, &'static str, &'static str)] =
                &[$((Verb::$name, $word, $fields),)*];
        }
    };
}

verbs! {
    /// Lets milliseconds pass.
    #[default]
    Wait "wait" "c",
    /// Writes a new content in place, making the file and its directories where they are missing.
    Write "write" "npcs",
    /// The same as editors do: a new file, renamed over the old.
    Save "save" "npcs",
    /// Appends to a file that is there.
    Append "append" "npc",
    /// Cuts a file in half.
    Truncate "truncate" "np",
    /// Writes the bytes that are there once more.
    Rewrite "rewrite" "np",
    /// Sets a file's time, in seconds from now.
    Touch "touch" "npc",
    /// Sets permission bits, in decimal.
    Chmod "chmod" "npc",
    /// Makes a directory.
    Mkdir "mkdir" "np",
    /// Renames.
    Rename "rename" "npt",
    /// Exchanges two paths.
    Swap "swap" "npt",
    /// Removes whatever is there.
    Remove "remove" "np",
    /// Makes a link that leads out of the share.
    Link "link" "np",
    /// Gives a file a second name (a hard link).
    HardLink "hardlink" "npt",
    /// Brings something back from the archive: the one with this number, counted around.
    Restore "restore" "nc",
    /// Resolves a conflict: the one with this number; even numbers keep it, odd ones drop it.
    Resolve "resolve" "nc",
    /// Decides about held deletes: 1 confirms, 0 restores.
    Decide "decide" "nc",
    /// Kills the program.
    Kill "kill" "n",
    /// Ends the program in good order.
    Stop "stop" "n",
    /// Cuts the power.
    Power "power" "n",
    /// Has the program die at one of its outputs to disk or store, counted from now, and start at the next step: killed
    /// before it is carried out (size 0) or after (1), or torn in the middle by a power cut (2). With 3, 4 and 5 it
    /// dies like that and stays down, so that users act meanwhile.
    Die "die" "ncs",
    /// Starts the program.
    Start "start" "n",
    /// Parts a machine from all others.
    Part "part" "n",
    /// The machine does not reach the other, which reaches it.
    Deaf "deaf" "no",
    /// Connections between both end for the machine, and the other hears nothing of it.
    Half "half" "no",
    /// Mends the network.
    Mend "mend" "",
    /// Breaks all connections.
    Reset "reset" "",
    /// How the lines are: 0 good, 1 breaking, 2 in tiny pieces, 3 very slow.
    Line "line" "c",
    /// So many disk operations in a thousand fail.
    Errors "errors" "nc",
    /// The next so many store operations fail.
    StoreFails "storefails" "nc",
    /// Flushes take so many milliseconds longer, as on a stick.
    Slow "slow" "nc",
    /// The volume is full (1), or has room (0).
    Full "full" "nc",
    /// So many hints of the watchers in a thousand are lost, and as many late, and as many doubled.
    Hints "hints" "c",
    /// Of what is closed or renamed so many in a thousand hints tell that whoever did it is done with it.
    Closes "closes" "c",
    /// Of what users and faults do to folders so many steps in a thousand are read by the watchers at once.
    Prompt "prompt" "c",
    /// The watcher names a path where nothing happened.
    Wrong "wrong" "np",
    /// The volume with the folder is pulled out.
    Unplug "unplug" "n",
    /// It is back.
    Plug "plug" "n",
    /// An empty folder takes the place of the share's.
    Vanish "vanish" "n",
    /// The share's folder is back.
    Return "return" "n",
    /// Sets the wall clock so many seconds off the true time; beyond 2^32 it counts backwards from there.
    Clock "clock" "nc",
    /// The program's home is lost: it starts anew, and joins the share again with what is there.
    Wipe "wipe" "n",
    /// Makes a backup of the program's home.
    Backup "backup" "n",
    /// Puts the backup back.
    Rollback "rollback" "n",
    /// The other machine becomes a copy of this one: home and folder.
    Clone "clone" "no",
    /// A member of the club that lies calls the machine and says what the number chooses: even ones lie of contents
    /// alone, odd ones of everything. The size says which of several liars it is.
    Lie "lie" "ncs",
    /// Everything heals and comes to rest, and all is checked.
    Rest "rest" "",
    /// Each path that is not in step must say why.
    Why "why" "n",
}

/// Clock offsets above this count backwards.
pub const CLOCK_TURN: u64 = 1 << 32;

impl Verb {
    fn entry(self) -> (&'static str, &'static str) {
        let found = Verb::ALL.iter().find(|(verb, _, _)| *verb == self);
        found.map(|(_, word, fields)| (*word, *fields)).expect("every verb is in the list that declares it")
    }

    /// The fields that count.
    pub fn fields(self) -> &'static str {
        self.entry().1
    }

    /// Whether a user does it.
    pub fn is_users(self) -> bool {
        (Verb::Write..=Verb::Resolve).contains(&self)
    }

    /// Whether machines may forget what they had told others.
    pub fn forgets(self) -> bool {
        matches!(self, Verb::Power | Verb::Wipe | Verb::Rollback | Verb::Clone)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, fields) = self.verb.entry();
        write!(f, "{word}")?;
        for field in fields.bytes() {
            match field {
                b'n' => write!(f, " n{}", self.node)?,
                b'o' => write!(f, " n{}", self.other)?,
                b'p' => write!(f, " {}", self.path)?,
                b't' => write!(f, " {}", self.to)?,
                b'c' => write!(f, " {}", self.number)?,
                _ if self.size > 0 => write!(f, " {}", self.size)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Step, String> {
        let mut words = line.split_whitespace();
        let word = words.next().unwrap_or_default();
        let (verb, _, fields) = Verb::ALL
            .iter()
            .find(|(_, known, _)| *known == word)
            .ok_or_else(|| format!("no such step: {line}"))?;
        let mut step = Step { verb: *verb, ..Step::default() };
        for field in fields.bytes() {
            let word = match words.next() {
                None if field == b's' => continue,
                word => word.ok_or_else(|| format!("too short: {line}"))?,
            };
            let machine = || {
                let number = word.strip_prefix('n').and_then(|number| number.parse::<usize>().ok());
                number.filter(|number| *number < MACHINES_MAX).ok_or_else(|| format!("no machine: {line}"))
            };
            let number = || word.parse::<u64>().map_err(|_| format!("no number: {line}"));
            match field {
                b'n' => step.node = machine()?,
                b'o' => step.other = machine()?,
                b'p' => step.path = word.to_owned(),
                b't' => step.to = word.to_owned(),
                b'c' => step.number = number()?,
                _ => step.size = number()?,
            }
        }
        Ok(step)
    }
}

/// A history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Where chance comes from: delays, torn files, cut pieces.
    pub seed: u64,
    /// How many machines have joined the share when it begins.
    pub machines: usize,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Script {
    /// How many steps are users' doing.
    pub fn user_steps(&self) -> usize {
        self.steps.iter().filter(|step| step.verb.is_users()).count()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}\nmachines {}", self.seed, self.machines)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl FromStr for Script {
    type Err = String;

    /// Reads a script; lines that begin with `#` are remarks.
    fn from_str(text: &str) -> Result<Script, String> {
        let mut script = Script { machines: 2, ..Script::default() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("no number: {line}"));
            if let Some(rest) = line.strip_prefix("seed ") {
                script.seed = number(rest)?;
            } else if let Some(rest) = line.strip_prefix("machines ") {
                script.machines = usize::try_from(number(rest)?).unwrap_or(usize::MAX);
            } else {
                script.steps.push(line.parse()?);
            }
        }
        if !(1..=MACHINES_MAX).contains(&script.machines) {
            return Err(format!("machines: 1 to {MACHINES_MAX}"));
        }
        let fits = |step: &Step| step.node < script.machines && step.other < script.machines;
        match script.steps.iter().find(|step| !fits(step)) {
            Some(step) => Err(format!("no such machine: {step}")),
            None => Ok(script),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (verb, _, _) in Verb::ALL {
            let uses = |field| verb.fields().contains(field);
            let step = Step {
                verb: *verb,
                node: usize::from(uses('n')),
                other: usize::from(uses('o')) * 2,
                path: if uses('p') { "d/a".into() } else { String::new() },
                to: if uses('t') { "*7".into() } else { String::new() },
                number: if uses('c') { 17 } else { 0 },
                size: if uses('s') { 9 } else { 0 },
            };
            let script = Script { seed: 5, machines: 3, steps: vec![step] };
            assert_eq!(script.to_string().parse(), Ok(script));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["fly n0", "write n0", "write x a 1", "kill n6", "machines 7", "machines 0", "kill n2"] {
            assert!(text.parse::<Script>().is_err(), "{text}");
        }
        assert!("# a remark\n\nmachines 3\nkill n2".parse::<Script>().is_ok());
    }
}
