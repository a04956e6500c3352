//! The store and the audit record: their options.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Store {
    /// How this node takes part, and how far it is
    Status,
    /// Every member, what it is to the store, and its last Head
    Peers,
    /// Check this node's state again, and lay every member's Heads beside it
    Verify {
        /// Ask all members that can be reached
        #[arg(long, required = true)]
        all: bool,
    },
    /// Hand leadership to another voter
    Transfer {
        /// The voter [default: the one that is furthest ahead]
        #[arg(long, value_name = "CLUSTER")]
        to: Option<String>,
    },
    /// Name the clusters that take a voter's place when it leaves; none, for no standbys
    Standbys {
        /// At most four
        #[arg(value_name = "CLUSTER")]
        clusters: Vec<String>,
    },
    /// Files that hold the whole store
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Go on from this node's own state when most voters are lost for good
    Recover {
        /// Do not ask. What only the lost voters had is gone, and they may not come back
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Write the store into a new file, on the node's machine
    Save {
        /// The file
        file: PathBuf,
    },
    /// What a file holds
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Check every checksum, signature and digest of a file
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Replace the store by a file's, with this node as the one voter of a new store epoch
    Restore {
        /// The file
        file: PathBuf,
        /// Do not ask. What is newer than the file is gone
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The youngest changes, and who made them
    List {
        /// How many at most
        #[arg(long, default_value_t = 50, value_name = "NUMBER")]
        last: u32,
    },
    /// Read the whole record and name each place where its chain is broken
    Verify,
}
