//! How another terminal talks to a running demo: one JSON line each way over a Unix socket in the
//! demo's folder. Who can open the socket owns the demo.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::error::{CommandError, Exit};

const LINE_BYTES_MAX: u64 = 64 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the other terminal asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub enum Ask {
    Status,
    /// The relay drops every packet from and to the cluster.
    Cut {
        cluster: String,
    },
    Heal {
        cluster: String,
    },
    Down,
}

/// What the demo answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
pub enum Answer {
    Status(DemoStatus),
    Done { message: String },
    Refused { message: String },
}

/// `fedctl demo status -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DemoStatus {
    pub api_version: String,
    pub kind: String,
    pub pid: u32,
    pub data_dir: PathBuf,
    pub clusters: Vec<DemoCluster>,
}

/// One cluster of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DemoCluster {
    pub name: String,
    /// `host:port` of the gateway's listeners, by protocol and service: `http`, `tcp/api`.
    pub addresses: std::collections::BTreeMap<String, String>,
    pub tunnel_address: String,
    pub admin_address: String,
    pub operator_socket: PathBuf,
    pub data_dir: PathBuf,
}

/// One question, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    pub ask: Ask,
    pub answer: tokio::sync::oneshot::Sender<Answer>,
}

/// Listens on the socket and passes questions on, one at a time, until nobody takes them any more;
/// the last answer still goes out.
pub async fn serve(listener: UnixListener, questions: mpsc::Sender<Asked>) {
    loop {
        let stream = tokio::select! {
            () = questions.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        // A broken conversation ends that conversation only.
        let _gone = tokio::time::timeout(ANSWER_TIMEOUT, converse(stream, &questions)).await;
    }
}

async fn converse(stream: UnixStream, questions: &mpsc::Sender<Asked>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Err(error) => Answer::Refused { message: format!("not a question: {error}") },
        Ok(ask) => {
            let (answer, answered) = tokio::sync::oneshot::channel();
            questions.send(Asked { ask, answer }).await?;
            answered.await?
        }
    };
    let text = serde_json::to_string(&answer)? + "\n";
    stream.write_all(text.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// Asks the demo that runs in `folder`.
pub async fn ask(folder: &Path, question: &Ask) -> Result<Answer, CommandError> {
    let path = socket_path(folder);
    let stream = UnixStream::connect(&path).await.map_err(|_| {
        CommandError::new(Exit::Unreachable, format!("no demo runs in {}", folder.display()))
            .hint("start one with `fedctl demo up`")
    })?;
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, exchange(stream, question)).await;
    Ok(asked.context("the demo did not answer in time").map_err(CommandError::from)??)
}

async fn exchange(stream: UnixStream, question: &Ask) -> Result<Answer, anyhow::Error> {
    let mut stream = BufReader::new(stream);
    stream.write_all((serde_json::to_string(question)? + "\n").as_bytes()).await?;
    let mut line = String::new();
    (&mut stream).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    serde_json::from_str(&line).context("the demo's answer cannot be read")
}

pub fn socket_path(folder: &Path) -> PathBuf {
    folder.join("demo.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_get_their_answers_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_path(folder.path())).unwrap();
        let (questions, mut asked) = mpsc::channel::<Asked>(1);
        tokio::spawn(serve(listener, questions));
        tokio::spawn(async move {
            while let Some(Asked { ask, answer }) = asked.recv().await {
                answer.send(Answer::Done { message: format!("{ask:?}") }).unwrap();
            }
        });
        let cut = Ask::Cut { cluster: "west".into() };
        let done = Answer::Done { message: format!("{cut:?}") };
        assert_eq!(ask(folder.path(), &cut).await.unwrap(), done);

        let mut raw = UnixStream::connect(socket_path(folder.path())).await.unwrap();
        raw.write_all(b"{\"verb\":\"explode\"}\n").await.unwrap();
        let mut text = String::new();
        raw.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("refused") && text.contains("explode"), "{text}");
    }

    #[tokio::test]
    async fn without_a_demo_the_error_says_how_to_start_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = ask(folder.path(), &Ask::Status).await.unwrap_err();
        assert_eq!(error.exit, Exit::Unreachable);
        assert!(error.to_string().contains("fedctl demo up"), "{error}");
    }
}
