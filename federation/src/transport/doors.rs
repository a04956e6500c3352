//! Which gateways of this cluster hold store connections of which peers, and how to ask one of them
//! for a stream.

use identity::OwnPeer;
use model::spiffe::Part;
use model::{ClusterName, SpiffeId};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tunnel::ClusterClient;
use wire::relay::{self, StreamAnswer, StreamRequest};

use super::Shared;
use super::stream::{BoxedCarrier, read_message};
use crate::gateways::{Door, Gateways};
use crate::limits::RELAY_TIMEOUT;

/// The doors of all gateways that are connected, as they report them.
#[derive(Debug, Clone, Default)]
pub struct RelayDoors(Gateways);

impl RelayDoors {
    pub(crate) fn of(gateways: Gateways) -> Self {
        Self(gateways)
    }

    /// Those of gateways that hold a connection of this cluster's node.
    pub(super) fn holding(&self, cluster: &ClusterName) -> Vec<Door> {
        self.0.relays_to(cluster)
    }
}

/// Asks a gateway for a stream to a cluster's node.
pub(super) async fn open(
    shared: &Shared,
    door: &Door,
    cluster: &ClusterName,
) -> Result<BoxedCarrier, String> {
    let ask = async {
        let mut stream = connect(shared, door).await?;
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
    asked.map_err(|text| format!("{door}: {text}"))
}

async fn connect(shared: &Shared, door: &Door) -> Result<BoxedCarrier, String> {
    match door {
        Door::Socket(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream))
        }
        Door::Port { address, gateway } => {
            let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true); // then it is a little slower
            // The address is the gateway's word: whoever else is there shows another name.
            let id = SpiffeId::of_part(shared.trust.domain(), Part::Gateway, gateway);
            let client = ClusterClient {
                identity: Some(shared.identity.clone()),
                trust: shared.trust.clone(),
                expected: OwnPeer::Exactly(id),
                alpn: relay::ALPN,
            };
            let stream = client.connect(stream).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream))
        }
    }
}
