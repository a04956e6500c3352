//! What is bounded when suites run.

use std::time::Duration;

/// How long a call of kubectl, helm, fedctl or docker may take, unless it says otherwise.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the engine, the programs, the node's image and the clusters may take, on a slow machine and
/// with nothing in the cache.
pub const UP_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// How long removing all clusters and the engine may take.
pub const DOWN_TIMEOUT: Duration = Duration::from_secs(300);

/// How long making the image of a machine without Kubernetes may take, with nothing in the cache.
pub const MACHINE_IMAGE_TIMEOUT: Duration = Duration::from_secs(900);

/// How long making a Debian package may take.
pub const PACKAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long building our images and loading them into the clusters may take.
pub const IMAGES_TIMEOUT: Duration = Duration::from_secs(600);

/// How long building the programs of an earlier commit may take, with nothing in the cache.
pub const EARLIER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How long a suite may take, so that one that hangs is told apart from a lost machine. One builds an
/// earlier commit.
pub const SUITE_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// How long objects of an earlier run may take to disappear.
pub const CLEAN_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a Deployment of the test application may take to be available.
pub const ROLLOUT_TIMEOUT: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How much of a failed command's words is shown: the last lines.
pub const SHOWN_LINES: usize = 20;
