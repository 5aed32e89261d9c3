//! The systematic crash test: for a set of small histories, an engine dies at each of its outputs to disk and store in
//! turn: before it is carried out, after, and torn by a power cut in the middle. It starts again, and everything must
//! hold that holds without (sync.md, property 9).

use clearskies_tests::sim::history::{Options, play};
use clearskies_tests::sim::script::Script;

/// What two machines do; the second is the one that dies.
const SCRIPTS: [(&str, &str); 6] = [
    ("arrival", "write n0 a 1\nwrite n0 d/b 2\nwrite n0 d/c 1000003\nwait 4000"),
    ("departure", "write n1 a 1\nwrite n1 d/b 1000002\nmkdir n1 e\nwait 4000"),
    ("replace", "write n0 a 1\nwrite n0 b 2\nwait 3000\nsave n0 a 3\nchmod n0 b 448\nwait 4000"),
    ("delete", "write n0 a 1\nwrite n0 d/b 2\nwait 3000\nremove n0 d\nwait 300\nremove n1 a\nwait 4000"),
    ("rename", "write n0 a 1\nwrite n0 d/b 2\nwait 3000\nrename n0 d e\nswap n1 a e/b\nwait 4000"),
    ("conflict", "write n0 a 1\nwait 3000\npart n0\nwrite n0 a 2\nwrite n1 a 3\nwait 2000\nmend\nwait 9000"),
];

/// How an engine dies, as the step `die` has it.
const BEFORE: u64 = 0;
const AFTER: u64 = 1;
const TORN: u64 = 2;

fn crash_everywhere(name: &str, moments: &[u64]) {
    let known = SCRIPTS.iter().enumerate().find(|(_, (known, _))| *known == name);
    let (seed, (_, steps)) = known.expect("a script of the list");
    let script = |first: &str| -> Script {
        format!("seed {seed}\nmachines 2\n{first}\n{steps}").parse().expect("a script")
    };
    let calm = play(&script(""), Options::default()).unwrap_or_else(|failure| panic!("{failure:?}"));
    let outputs = calm.outputs[1];
    assert!(outputs > 20, "{name}: {outputs} outputs are not what this is about");
    let mut failures = Vec::new();
    for output in 0..outputs {
        for moment in moments {
            if let Err(failure) = play(&script(&format!("die n1 {output} {moment}")), Options::default()) {
                failures.push(format!("die n1 {output} {moment}: {:?}", failure.broken));
            }
        }
    }
    assert!(failures.is_empty(), "{name}: {} of {outputs} outputs\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn while_files_arrive() {
    crash_everywhere("arrival", &[BEFORE, AFTER, TORN]);
}

#[test]
fn while_files_are_sent() {
    crash_everywhere("departure", &[BEFORE, AFTER, TORN]);
}

#[test]
fn while_files_are_replaced() {
    crash_everywhere("replace", &[BEFORE, AFTER, TORN]);
}

#[test]
fn while_files_are_renamed() {
    crash_everywhere("rename", &[BEFORE, AFTER, TORN]);
}

#[test]
fn while_a_conflict_is_kept() {
    crash_everywhere("conflict", &[BEFORE, AFTER, TORN]);
}

#[test]
fn while_files_are_deleted() {
    crash_everywhere("delete", &[BEFORE, AFTER, TORN]);
}
