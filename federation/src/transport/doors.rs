//! Which gateways of this cluster hold store connections of which peers, and how to ask one of them
//! for a stream.

use std::path::{Path, PathBuf};

use model::ClusterName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;
use wire::relay::{StreamAnswer, StreamRequest};

use super::stream::read_message;
use crate::gateways::Gateways;
use crate::limits::RELAY_TIMEOUT;

/// The doors of all gateways that are connected, as they report them.
#[derive(Debug, Clone, Default)]
pub struct RelayDoors(Gateways);

impl RelayDoors {
    pub(crate) fn of(gateways: Gateways) -> Self {
        Self(gateways)
    }

    /// The sockets of gateways that hold a connection of this cluster's node.
    pub(super) fn holding(&self, cluster: &ClusterName) -> Vec<PathBuf> {
        self.0.relays_to(cluster)
    }
}

/// Asks a gateway for a stream to a cluster's node.
pub(super) async fn open(socket: &Path, cluster: &ClusterName) -> Result<UnixStream, String> {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let request = StreamRequest { cluster: cluster.clone() }.encode();
        stream.write_all(&request).await.map_err(|error| error.to_string())?;
        let body = read_message(&mut stream).await.map_err(|error| error.to_string())?;
        match StreamAnswer::decode(&body).map_err(|error| error.to_string())? {
            StreamAnswer::Open => Ok(stream),
            StreamAnswer::Refused(text) => Err(text),
        }
    };
    let asked = timeout(RELAY_TIMEOUT, ask).await;
    let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {RELAY_TIMEOUT:?}")));
    asked.map_err(|text| format!("{}: {text}", socket.display()))
}
