//! What every disk pool must do with every `DiskOp`: one suite for the simulated disk and for the real one, so that
//! what engines learn in virtual time holds on real folders.

mod real;
mod sim;
mod suite;

use clearskies_core::io::{DiskDone, DiskError, DiskOp};

/// A disk pool under test, with one folder for the share, and a user beside it. Paths of the user are relative to the
/// folder.
pub(crate) trait Bench {
    /// Carries out one operation and waits for it.
    fn run(&mut self, op: DiskOp) -> Result<DiskDone, DiskError>;
    /// The absolute path of the folder; it exists, and its parent belongs to the bench too.
    fn folder(&self) -> String;
    /// Lets so much time pass that a later write gets a later time stamp.
    fn wait(&mut self);
    /// Writes a file in place.
    fn write(&mut self, path: &str, content: &[u8]);
    /// Makes a directory and its parents.
    fn mkdir(&mut self, path: &str);
    /// Makes a link.
    fn symlink(&mut self, path: &str, target: &str);
    /// Makes a file whose name need not be UTF-8, in the folder itself.
    fn write_raw(&mut self, name: &[u8]);
    /// Renames; `path` may begin with `../`.
    fn rename(&mut self, from: &str, to: &str);
    /// Sets permission bits.
    fn chmod(&mut self, path: &str, mode: u32);
    /// A file's bytes, or a link's target; `None` if neither is there.
    fn read(&self, path: &str) -> Option<Vec<u8>>;
    /// Whether anything is there.
    fn exists(&self, path: &str) -> bool;
}

/// Makes one test per case for a bench.
macro_rules! suite {
    ($name:ident, $bench:expr, [$($case:ident),* $(,)?]) => {
        mod $name {
            $(
                #[test]
                fn $case() {
                    super::suite::$case(&mut $bench);
                }
            )*
        }
    };
}

/// Runs the whole suite on a bench.
macro_rules! whole_suite {
    ($name:ident, $bench:expr) => {
        suite!(
            $name,
            $bench,
            [
                opens_what_is_a_folder,
                keeps_a_marker,
                notices_another_root,
                walks_in_preorder,
                walks_leave_out_what_cannot_be_synced,
                stats_in_order,
                hashes_files_links_and_directories,
                reads_pieces,
                installs_new_files,
                installs_links_and_copies,
                installs_over_the_expected_version_alone,
                keeps_what_it_replaced,
                signs_compares_and_patches,
                writes_large_temps,
                keeps_temps_over_a_restart,
                sweeps_temps,
                makes_directories,
                renames_without_replacing,
                renames_directories_whole,
                removes_the_expected_version_alone,
                removes_empty_directories_alone,
                sets_modes_and_times,
                lists_restores_and_prunes_the_archive,
                finds_and_takes_out_what_was_written_late,
                never_leaves_the_share,
                closed_roots_do_nothing,
                tells_the_space,
            ]
        );
    };
}

whole_suite!(simulated, crate::sim::Sim::new());
whole_suite!(real_folder, crate::real::Real::new());
