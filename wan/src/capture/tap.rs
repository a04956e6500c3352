//! The place in the packets' way where a recording may or may not be running.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::{CaptureError, Recorder, Recording};
use crate::lock;

/// Shared by everything that forwards packets and by the handles that start and stop a recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap(Arc<Mutex<Option<Recorder>>>);

impl Tap {
    /// Starts a recording; one that was running is finished.
    pub(crate) fn start(&self, path: &Path) -> Result<(), CaptureError> {
        let recorder = Recorder::create(path)?;
        let before = lock(&self.0).replace(recorder);
        before.map_or(Ok(()), |recorder| recorder.finish().map(drop))
    }

    /// Writes out what was recorded so far.
    pub(crate) fn flush(&self) -> Result<Option<Recording>, CaptureError> {
        lock(&self.0).as_mut().map(Recorder::flush).transpose()
    }

    /// Ends the recording.
    pub(crate) fn stop(&self) -> Result<Option<Recording>, CaptureError> {
        let recorder = lock(&self.0).take();
        recorder.map(Recorder::finish).transpose()
    }

    /// A datagram passes.
    pub(crate) fn udp(&self, source: SocketAddr, target: SocketAddr, datagram: &[u8]) {
        if let Some(recorder) = lock(&self.0).as_mut() {
            recorder.record_udp(SystemTime::now(), source, target, datagram);
        }
    }

    /// An IP packet passes.
    pub(crate) fn ip(&self, packet: &[u8]) {
        if let Some(recorder) = lock(&self.0).as_mut() {
            recorder.record_ip(SystemTime::now(), packet);
        }
    }
}
