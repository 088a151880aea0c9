//! Who is at the other end of a call: what the kernel says at connect, never what a message says.

use crate::words::Uid;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::Request;
use tonic::transport::server::Connected;

/// Connections of one uid at once. A daemon needs one.
const CONNECTIONS_PER_UID_MAX: usize = 16;

/// The kernel's word on a connection (SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Whose process connected.
    pub uid: Uid,
}

impl Peer {
    /// Whose call this is; none where the connection was not accepted by [`Callers`].
    pub fn of<T>(request: &Request<T>) -> Option<Self> {
        request.extensions().get::<Self>().copied()
    }
}

/// Connections as they come, each with its peer; those over the cap are closed at once.
#[derive(Debug)]
pub struct Callers {
    listener: UnixListener,
    open: Arc<Mutex<BTreeMap<Uid, usize>>>,
    /// After an accept that failed (no descriptors left): not before then again.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Callers {
    /// Takes the listener over.
    pub fn new(listener: UnixListener) -> Self {
        Self { listener, open: Arc::default(), pause: None }
    }

    fn take(&self, stream: UnixStream) -> Option<Caller> {
        let uid = Uid(stream.peer_cred().ok()?.uid());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(uid).or_default();
        if *count >= CONNECTIONS_PER_UID_MAX {
            return None;
        }
        *count += 1;
        Some(Caller { stream, uid, open: Arc::clone(&self.open) })
    }
}

impl Stream for Callers {
    type Item = std::io::Result<Caller>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(context) {
                Poll::Ready(Ok((stream, _))) => {
                    if let Some(caller) = self.take(stream) {
                        return Poll::Ready(Some(Ok(caller)));
                    }
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(std::time::Duration::from_millis(100))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Caller {
    stream: UnixStream,
    uid: Uid,
    open: Arc<Mutex<BTreeMap<Uid, usize>>>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

impl Connected for Caller {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        Peer { uid: self.uid }
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
