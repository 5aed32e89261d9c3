//! Makes a failing script as small as it gets, while it still fails in the same way.

use super::check::Broken;
use super::script::{Script, Step, Verb};

/// The smallest script found, and how it fails, after so many attempts at most. `fails` plays a script.
pub fn shrink(
    script: &Script,
    broken: &Broken,
    attempts_max: u32,
    mut fails: impl FnMut(&Script) -> Option<Broken>,
) -> (Script, Broken) {
    let mut best = (script.clone(), broken.clone());
    let mut left = attempts_max;
    let mut attempt = |best: &mut (Script, Broken), tried: Script| -> bool {
        if left == 0 || tried == best.0 {
            return false;
        }
        left -= 1;
        match fails(&tried) {
            Some(found) if found.word == broken.word => {
                *best = (tried, found);
                true
            }
            _ => false,
        }
    };
    loop {
        let before = best.0.clone();
        drop_steps(&mut best, &mut attempt);
        drop_machines(&mut best, &mut attempt);
        simplify(&mut best, &mut attempt);
        if best.0 == before {
            return best;
        }
    }
}

type Best = (Script, Broken);

/// Leaves out runs of steps: halves, quarters, and so on down to single ones.
fn drop_steps(best: &mut Best, attempt: &mut impl FnMut(&mut Best, Script) -> bool) {
    let mut run = best.0.steps.len().div_ceil(2);
    while run > 0 {
        let mut at = 0;
        while at < best.0.steps.len() {
            let mut tried = best.0.clone();
            let end = (at + run).min(tried.steps.len());
            tried.steps.drain(at..end);
            if !attempt(best, tried) {
                at += run;
            }
        }
        run = if run == 1 { 0 } else { run.div_ceil(2) };
    }
}

/// Leaves out machines, with all that happens there.
fn drop_machines(best: &mut Best, attempt: &mut impl FnMut(&mut Best, Script) -> bool) {
    let mut gone = best.0.machines;
    while gone > 0 {
        gone -= 1;
        let mut tried = best.0.clone();
        if tried.machines <= 2 {
            return;
        }
        tried.machines -= 1;
        let uses = |step: &Step, field, machine| step.verb.fields().contains(field) && machine == gone;
        tried.steps.retain(|step| !uses(step, 'n', step.node) && !uses(step, 'o', step.other));
        for step in &mut tried.steps {
            step.node -= usize::from(step.node >= gone && step.node > 0);
            step.other -= usize::from(step.other >= gone && step.other > 0);
        }
        attempt(best, tried);
    }
}

/// Rounds times and takes simpler steps in place of others.
fn simplify(best: &mut Best, attempt: &mut impl FnMut(&mut Best, Script) -> bool) {
    for index in 0..best.0.steps.len() {
        for simpler in simpler(&best.0.steps[index]) {
            let mut tried = best.0.clone();
            tried.steps[index] = simpler;
            if attempt(best, tried) {
                break;
            }
        }
    }
}

fn simpler(step: &Step) -> Vec<Step> {
    match step.verb {
        Verb::Wait => {
            let rounded = [10, 100, 1000, 10_000].into_iter().filter(|number| *number < step.number);
            rounded.map(|number| Step { number, ..step.clone() }).collect()
        }
        Verb::Save => vec![Step { verb: Verb::Write, ..step.clone() }],
        Verb::Power => vec![Step { verb: Verb::Kill, ..step.clone() }],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_script_becomes_small() {
        let script = super::super::generate::script(3, Default::default());
        let mut script = Script { machines: 4, ..script };
        script.steps.insert(2, "remove n2 a".parse().unwrap());
        script.steps.push("kill n3".parse().unwrap());
        // A bug that needs a removal before a kill on another machine.
        let fails = |script: &Script| {
            let removed = script.steps.iter().position(|step| step.verb == Verb::Remove)?;
            let who = script.steps[removed].node;
            let kill = |step: &&Step| step.verb == Verb::Kill && step.node != who;
            script.steps[removed..].iter().find(kill).map(|_| Broken::new(2, "lost", ""))
        };
        let (small, broken) = shrink(&script, &Broken::new(2, "lost", ""), 10_000, fails);
        assert_eq!((small.steps.len(), small.machines, broken.word), (2, 2, "lost"));
    }
}
