//! Starting and ending engines: in good order, by a kill, and by a loss of power.

use std::time::Duration;

use clearskies_core::engine::Engine;
use clearskies_core::engine::command::Command;

use super::World;

/// What engines are set to, each start by chance: links with and without units, deflated and stored, are all there.
const COMPRESSION: [&str; 4] = ["auto", "always", "always", "never"];

impl World {
    /// Starts the engine of a machine that is down.
    pub fn start(&mut self, index: usize) {
        let seed = self.rng.array();
        let now = self.now_at(index);
        let node = &mut self.nodes[index];
        assert!(node.engine.is_none(), "n{index} runs already");
        let config = node.config(index, &mut self.rng);
        node.run += 1;
        node.stopped = false;
        let mut engine = Engine::new_plain_here(config, seed, now, self.signed.clone());
        let by_chance = COMPRESSION[usize::from(seed[0]) % COMPRESSION.len()];
        engine.compress(node.compression.unwrap_or(by_chance));
        engine.handle_interfaces(now, &[(node.ip, 24)]);
        node.engine = Some(engine);
        self.note(format_args!("n{index} starts"));
        self.drain(index);
    }

    /// Kills the engine (`kill -9`): what it held in memory is gone, what it wrote stays.
    pub fn crash(&mut self, index: usize) {
        self.note(format_args!("n{index} is killed"));
        self.down(index);
        for (link, side) in std::mem::take(&mut self.nodes[index].conns).into_values() {
            self.hang_up(link, side);
        }
    }

    /// Cuts a machine's power: what was not flushed may be lost, and its peers hear nothing of it.
    pub fn power_cut(&mut self, index: usize) {
        self.down(index);
        let now = self.now;
        let node = &mut self.nodes[index];
        let lost = node.store.power_cut(now, &mut self.rng);
        node.disk.power_cut(&mut self.rng);
        node.machine_restarted = true;
        for (link, side) in std::mem::take(&mut node.conns).into_values() {
            if let Some(end) = self.net.end(link, side) {
                end.open = false;
            }
            self.net.sweep(link);
        }
        self.note(format_args!("n{index} loses power, store tail lost: {lost}"));
    }

    fn down(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.engine = None;
        node.run += 1;
        node.disk.close_all();
        node.dialing.clear();
        node.forget_orders();
        node.temps_free.clear();
        node.replies.clear();
    }

    /// Ends the engine in good order.
    pub fn stop(&mut self, index: usize) {
        self.command(index, Command::Stop);
        let until = self.now.plus(Duration::from_secs(10));
        let died = |world: &World| world.nodes[index].engine.is_none();
        while !self.nodes[index].stopped && !died(self) && self.now < until && self.step() {}
        if died(self) {
            // A death that was planned came first.
            return;
        }
        assert!(self.nodes[index].stopped, "n{index} did not stop\n{}", self.trace.tail(40));
        self.crash(index);
        let node = &mut self.nodes[index];
        node.store.close();
        node.end_run();
    }

    /// Starts a machine again, after [`World::crash`], [`World::power_cut`] or [`World::stop`]; kills it first if it
    /// runs.
    pub fn restart(&mut self, index: usize) {
        if self.nodes[index].engine.is_some() {
            self.crash(index);
        }
        self.start(index);
    }
}
