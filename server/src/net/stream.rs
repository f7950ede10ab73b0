//! A client's socket: TCP, or of this machine's file system.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// An address.
    Tcp(TcpListener),
    /// A path, which is removed in the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens on an address; so many connections may wait to be accepted.
    pub fn tcp(address: SocketAddr, backlog: i32) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A node that was started again finds connections of before on its port.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        socket.set_nonblocking(true)?;
        Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
    }

    /// Listens on a path, with these rights if they are not 0. What is there is replaced, if it is a socket.
    pub fn unix(path: &Path, rights: u32, backlog: i32) -> io::Result<Listener> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no socket")),
            Err(_) => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        if rights != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(rights))?;
        }
        socket.listen(backlog)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket.into());
        Ok(Listener::Unix(listener, path.to_owned()))
    }

    /// The next connection. `WouldBlock` if there is none.
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener, _) => {
                listener.accept().map(|(stream, _)| Stream::Unix(stream))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub enum Stream {
    /// From anywhere.
    Tcp(TcpStream),
    /// From this machine.
    Unix(UnixStream),
}

impl Stream {
    /// Whether the client is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Stream::Tcp(stream) => {
                stream.peer_addr().is_ok_and(|it| it.ip().to_canonical().is_loopback())
            }
            Stream::Unix(_) => true,
        }
    }

    /// Both ends as CLIENT LIST shows them: the client's, and ours.
    pub fn names(&self) -> (String, String) {
        let shown = |address: io::Result<SocketAddr>| {
            address.map_or_else(|_| "?:0".into(), |address| address.to_string())
        };
        match self {
            Stream::Tcp(stream) => (shown(stream.peer_addr()), shown(stream.local_addr())),
            Stream::Unix(stream) => {
                let address = stream.local_addr().ok();
                let path = address.as_ref().and_then(|it| it.as_pathname());
                let name = format!("{}:0", path.unwrap_or(Path::new("")).display());
                (name.clone(), name)
            }
        }
    }

    /// Small packets at once; TCP asks after that many seconds of silence, and three times more in the same
    /// time, as in Redis. A system that does not take it goes without.
    pub fn tune(&self, seconds: u64) {
        let Stream::Tcp(stream) = self else { return };
        let _ = stream.set_nodelay(true);
        if seconds > 0 {
            let probes = TcpKeepalive::new()
                .with_time(Duration::from_secs(seconds))
                .with_interval(Duration::from_secs((seconds / 3).max(1)))
                .with_retries(3);
            let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buffer),
            Stream::Unix(stream) => stream.write(buffer),
        }
    }

    fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(buffers),
            Stream::Unix(stream) => stream.write_vectored(buffers),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
}

macro_rules! as_source {
    ($type:ty, $first:pat => $one:expr, $second:pat => $other:expr) => {
        impl Source for $type {
            fn register(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
                match self {
                    $first => $one.register(to, token, what),
                    $second => $other.register(to, token, what),
                }
            }

            fn reregister(
                &mut self,
                to: &Registry,
                token: Token,
                what: Interest,
            ) -> io::Result<()> {
                match self {
                    $first => $one.reregister(to, token, what),
                    $second => $other.reregister(to, token, what),
                }
            }

            fn deregister(&mut self, from: &Registry) -> io::Result<()> {
                match self {
                    $first => $one.deregister(from),
                    $second => $other.deregister(from),
                }
            }
        }
    };
}

as_source!(Stream, Stream::Tcp(one) => one, Stream::Unix(other) => other);
as_source!(Listener, Listener::Tcp(one) => one, Listener::Unix(other, _) => other);
