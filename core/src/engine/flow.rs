//! How much comes and goes on links: which sockets are read, what waits until its share can take it, and which sockets
//! are full.

use alloc::vec::Vec;

use crate::connection::Connection;
use crate::engine::Engine;
use crate::engine::links::{Link, Stage};
use crate::ids::ConnId;
use crate::io::Output;
use crate::time::Now;

impl Engine {
    /// Whether the share of a link can take what comes on it.
    pub(super) fn share_takes(&self, conn: ConnId) -> bool {
        let share = self.links.all.get(&conn).and_then(|link| self.shares.get(&link.club?));
        share.is_none_or(|share| share.wants_read(conn))
    }

    /// Goes on with links that hold what their shares could not take before.
    pub(super) fn take_held(&mut self, now: Now) {
        let holding = |link: &Link| link.connection.as_ref().is_some_and(Connection::is_holding);
        let conns: Vec<ConnId> =
            self.links.all.iter().filter(|(_, link)| holding(link)).map(|(&conn, _)| conn).collect();
        for conn in conns {
            self.take_events(now, conn);
        }
    }

    /// A link's socket takes nothing more for now.
    pub(super) fn full(&mut self, now: Now, conn: ConnId) {
        if let Some(connection) = self.links.all.get_mut(&conn).and_then(|link| link.connection.as_mut()) {
            connection.handle_full(now);
        }
    }

    /// Tells the host which sockets to read.
    pub(super) fn update_interests(&mut self, now: Now) {
        for (&conn, link) in &mut self.links.all {
            let Some(connection) = &mut link.connection else { continue };
            let share = link.club.and_then(|root| self.shares.get(&root));
            let read = connection.wants_read() && share.is_none_or(|share| share.wants_read(conn));
            if read != link.reading && link.stage != Stage::Closing {
                link.reading = read;
                connection.set_reading(now, read);
                self.out.push(Output::Interest { conn, read });
            }
        }
    }
}
