//! A peer made by hand, that can do what our own side never would.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use identity::{ExpectedPeer, IdentityCell, JoinCertificate};
use model::GatewayId;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint};
use wire::tunnel::{
    ALPN_TUNNEL, ConnectionClass, ErrorCode, Frame, FrameDecoder, Hello, Open, PeerLimits,
    StreamReset, VERSIONS, encode_data, encode_end, encode_hello, encode_open,
};

use crate::site::Site;

pub(crate) struct Stranger {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    gateway: GatewayId,
    class: ConnectionClass,
}

/// Why the other side hung up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HungUp {
    pub(crate) code: Option<ErrorCode>,
    pub(crate) text: String,
}

impl Stranger {
    pub(crate) async fn connect(
        cell: Arc<IdentityCell>,
        to: &Site,
        alpn: &[u8],
        class: ConnectionClass,
    ) -> Result<Self, HungUp> {
        let gateway = GatewayId::of(cell.load().svid.clone().unwrap().id());
        let expected = ExpectedPeer::Cluster(to.cluster.name.clone());
        let tls = identity::client_config(cell, expected, alpn);
        let config = QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(config));
        config.initial_dst_cid_provider(Arc::new(move || {
            let mut id: [u8; 16] = rand::random();
            id[15] = if class == ConnectionClass::Bulk { 2 } else { 1 };
            quinn::ConnectionId::new(&id)
        }));
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connecting = endpoint.connect_with(config, to.addr(), "x").unwrap();
        let connection = connecting.await.map_err(|error| hung_up(&error))?;
        Ok(Self { endpoint, connection, gateway, class })
    }

    /// With a self-signed certificate and a fast connection's first id; how it was turned away.
    pub(crate) async fn nameless(
        cell: Arc<IdentityCell>,
        to: &Site,
        alpn: &[u8],
        certificate: &JoinCertificate,
    ) -> HungUp {
        let gateway = GatewayId::of(cell.load().svid.clone().unwrap().id());
        let class = ConnectionClass::Fast;
        let tls = identity::join_client_config(certificate, None, Arc::default(), alpn);
        let config = QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(config));
        config.initial_dst_cid_provider(Arc::new(move || {
            let mut id: [u8; 16] = rand::random();
            id[15] = 1;
            quinn::ConnectionId::new(&id)
        }));
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connecting = endpoint.connect_with(config, to.addr(), "x").unwrap();
        let connection = connecting.await.unwrap();
        Self { endpoint, connection, gateway, class }.hung_up().await
    }

    pub(crate) async fn tunnel(cell: Arc<IdentityCell>, to: &Site) -> Result<Self, HungUp> {
        Self::connect(cell, to, ALPN_TUNNEL, ConnectionClass::Fast).await
    }

    /// A connection of this class, after HELLO.
    pub(crate) async fn greeted(
        cell: Arc<IdentityCell>,
        to: &Site,
        class: ConnectionClass,
    ) -> Self {
        let stranger = Self::connect(cell, to, ALPN_TUNNEL, class).await.unwrap();
        stranger.greet(&stranger.hello()).await.unwrap();
        stranger
    }

    /// Writes these bytes on a new bidirectional stream and ends it; what comes back, or the reset.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Result<Vec<Frame>, StreamReset> {
        let (mut send, recv) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let _ = send.finish();
        read_frames(recv).await
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            versions: VERSIONS,
            features: Vec::new(),
            limits: PeerLimits {
                stream_window_bytes: 1 << 18,
                connection_window_bytes: 1 << 24,
                streams_max: 100,
            },
            gateway: self.gateway,
            incarnation: 1,
            class: self.class,
            worker: 0,
            head: Bytes::new(),
            siblings: Vec::new(),
        }
    }

    /// Says HELLO and waits for the other side's; the control stream is left open.
    pub(crate) async fn greet(&self, hello: &Hello) -> Result<Hello, HungUp> {
        let mut frame = BytesMut::new();
        encode_hello(hello, &mut frame).unwrap();
        self.control(frame.freeze()).await
    }

    /// Writes these bytes first on the control stream.
    pub(crate) async fn control(&self, bytes: Bytes) -> Result<Hello, HungUp> {
        let closed = async || hung_up(&self.connection.closed().await);
        let Ok((mut send, mut recv)) = self.connection.open_bi().await else {
            return Err(closed().await);
        };
        if send.write_chunk(bytes).await.is_err() {
            return Err(closed().await);
        }
        let mut decoder = FrameDecoder::new();
        loop {
            match decoder.next().unwrap() {
                Some(Frame::Hello(hello)) => {
                    std::mem::forget((send, recv)); // dropped, they would end the control stream
                    return Ok(*hello);
                }
                Some(frame) => panic!("{frame:?}"),
                None => {}
            }
            match recv.read_chunk(4096, true).await {
                Ok(Some(chunk)) => decoder.push(chunk.bytes),
                _ => return Err(closed().await),
            }
        }
    }

    /// A whole small exchange by hand.
    pub(crate) async fn echo(&self, open: &Open, text: &str) -> String {
        let (mut send, mut recv) = self.connection.open_bi().await.unwrap();
        let mut out = BytesMut::new();
        encode_open(open, &mut out).unwrap();
        let mut payload = Bytes::copy_from_slice(text.as_bytes());
        while let Some(piece) = encode_data(&mut payload, &mut out) {
            out.extend_from_slice(&piece);
        }
        encode_end(&mut out);
        send.write_all(&out).await.unwrap();
        send.finish().unwrap();
        let mut decoder = FrameDecoder::new();
        decoder.push(recv.read_to_end(1 << 20).await.unwrap().into());
        let mut answer = Vec::new();
        while let Some(frame) = decoder.next().unwrap() {
            if let Frame::Data(data) = frame {
                answer.extend_from_slice(&data);
            }
        }
        String::from_utf8(answer).unwrap()
    }

    pub(crate) async fn hung_up(&self) -> HungUp {
        hung_up(&self.connection.closed().await)
    }

    /// Goes on from another address, as after a change of network or of a NAT's mind.
    pub(crate) fn change_port(&self) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        self.endpoint.rebind(socket).unwrap();
        addr
    }
}

pub(crate) async fn read_frames(mut recv: quinn::RecvStream) -> Result<Vec<Frame>, StreamReset> {
    let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
    loop {
        while let Some(frame) = decoder.next().unwrap() {
            frames.push(frame);
        }
        match recv.read_chunk(4096, true).await {
            Ok(Some(chunk)) => decoder.push(chunk.bytes),
            Ok(None) => return Ok(frames),
            Err(quinn::ReadError::Reset(code)) => {
                return Err(StreamReset::unpack(code.into_inner()));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn hung_up(error: &ConnectionError) -> HungUp {
    match error {
        ConnectionError::ApplicationClosed(close) => HungUp {
            code: Some(ErrorCode::from_number(close.error_code.into_inner())),
            text: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        other => HungUp { code: None, text: other.to_string() },
    }
}
