//! The child against servers that mean ill.

use super::*;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server whose every connection gets what `answer` writes, given the head of the request.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (asked, answer) = (Arc::clone(&server.asked), Arc::new(answer));
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, asked, answer) = (stream.unwrap(), Arc::clone(&asked), Arc::clone(&answer));
                thread::spawn(move || {
                    let Ok(head) = head(&mut stream) else { return };
                    asked.lock().unwrap().push(head.clone());
                    // A client that goes away is what many of these tests wait for.
                    let _ = answer(&head, &mut stream);
                });
            }
        });
        server
    }

    /// One that says the same to everybody.
    fn saying(text: &str) -> Self {
        let text = text.to_owned();
        Self::start(move |_, to| to.write_all(text.as_bytes()))
    }

    fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }
}

fn head(from: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn args(url: &str) -> FetchArgs {
    FetchArgs { url: url.to_owned(), most: 100, skip: 0, proxy: None }
}

/// What came, and how it ended.
fn bring_as(
    args: &FetchArgs,
    builder: impl Fn() -> ClientBuilder,
    patience: Patience,
) -> (Vec<u8>, Result<(), FetchError>) {
    let mut out = Vec::new();
    let outcome = from_network(args, builder, patience, &mut out);
    (out, outcome)
}

fn bring(args: &FetchArgs) -> (Vec<u8>, Result<(), FetchError>) {
    bring_as(args, Client::builder, PATIENCE)
}

/// For servers that hold up: half a second stands for the half minute.
const SHORT: Patience =
    Patience { connect: Duration::from_secs(10), span: Duration::from_millis(500), bytes_min: 1024 };

#[test]
fn what_is_there_comes_whole() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
    let (bytes, outcome) = bring(&args(&server.url()));
    assert!(outcome.is_ok() && bytes == b"whole", "{outcome:?}");
}

#[test]
fn an_answer_that_is_no_file_is_none() {
    for status in ["404 Not Found", "410 Gone"] {
        let server = Server::saying(&format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\n\r\n<html>"));
        assert!(matches!(bring(&args(&server.url())), (bytes, Err(FetchError::NotThere(_))) if bytes.is_empty()));
    }
    for status in ["500 Oops", "403 Forbidden", "206 Partial Content", "204 No Content", "304 Not Modified", "300 Many"]
    {
        let server = Server::saying(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        let (bytes, outcome) = bring(&args(&server.url()));
        assert!(matches!(outcome, Err(FetchError::Status { .. })) && bytes.is_empty(), "{status}: {outcome:?}");
    }
    for nonsense in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        let server = Server::saying(nonsense);
        assert!(matches!(bring(&args(&server.url())).1, Err(FetchError::Http { .. })), "{nonsense:?}");
    }
}

#[test]
fn never_more_than_was_asked_for() {
    let chunks = Server::start(|_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            to.write_all(b"10\r\nabcdefghijklmnop\r\n")?;
        }
    });
    let until_closed = Server::start(|_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            to.write_all(&[b'x'; 50])?;
        }
    });
    let one_more = Server::saying(&format!("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n{}", "x".repeat(101)));
    for server in [chunks, until_closed, one_more] {
        let (bytes, outcome) = bring(&args(&server.url()));
        assert!(matches!(outcome, Err(FetchError::TooLarge { most: 100, .. })), "{outcome:?}");
        assert!(bytes.len() <= 100, "{} bytes were passed on", bytes.len());
    }
    let all = Server::saying(&format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "x".repeat(100)));
    assert!(bring(&args(&all.url())).1.is_ok());
}

#[test]
fn a_length_that_lies_is_an_error_or_the_end() {
    for length in ["10", "9223372036854775807"] {
        let server = Server::saying(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nshort"));
        let (bytes, outcome) = bring(&args(&server.url()));
        assert!(matches!(outcome, Err(FetchError::Http { .. })), "{length}: {outcome:?}");
        assert_eq!(bytes, b"short");
    }
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nlonger");
    assert!(matches!(bring(&args(&server.url())), (bytes, Ok(())) if bytes == b"lon"));
}

#[test]
fn nothing_is_unpacked() {
    // RFC 1952: a head of gzip, and what would be a megabyte of zeros.
    let bomb = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xed\xc1\x01\x01\0\0\0\x80\x90\xfe\xaf\xee\x08\x0a";
    let server = Server::start(|_, to| {
        to.write_all(
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len()).as_bytes(),
        )?;
        to.write_all(bomb)
    });
    let (bytes, outcome) = bring(&args(&server.url()));
    assert!(outcome.is_ok() && bytes == bomb, "{outcome:?}");
    assert!(server.asked.lock().unwrap()[0].to_lowercase().contains("accept-encoding: identity"));
}

#[test]
fn whoever_holds_us_up_is_left() {
    let drip = |head: &'static [u8], drop: &'static [u8]| {
        Server::start(move |_, to| {
            to.write_all(head)?;
            loop {
                to.write_all(drop)?;
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let body = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x");
    let heads = drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x");
    let continues = drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n");
    let silent = Server::start(|_, _| {
        thread::sleep(Duration::from_secs(3600));
        Ok(())
    });
    for (name, server) in [("body", body), ("heads", heads), ("continues", continues), ("silent", silent)] {
        let (_, outcome) = bring_as(&args(&server.url()), Client::builder, SHORT);
        assert!(matches!(outcome, Err(FetchError::TooSlow { .. })), "{name}: {outcome:?}");
    }
    // Slow, and not too slow: more than 1,024 bytes come in each half second.
    let steady = Server::start(|_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n")?;
        for _ in 0..15 {
            to.write_all(&[b'x'; 2000])?;
            thread::sleep(Duration::from_millis(60));
        }
        Ok(())
    });
    let whole = FetchArgs { most: 30_000, ..args(&steady.url()) };
    let (bytes, outcome) = bring_as(&whole, Client::builder, Patience { span: Duration::from_secs(5), ..SHORT });
    assert!(outcome.is_ok() && bytes.len() == 30_000, "{outcome:?}");
    assert_eq!((PATIENCE.span.as_secs(), PATIENCE.bytes_min), (30, 30 * 1024), "the floor is 1 KiB/s over 30 s");
}

#[test]
fn endless_headers_end() {
    let server = Server::start(|_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\n")?;
        for number in 0.. {
            write!(to, "X-{number}: {}\r\n", "x".repeat(1000))?;
        }
        Ok(())
    });
    assert!(matches!(bring(&args(&server.url())).1, Err(FetchError::Http { .. })));
}

#[test]
fn a_line_that_broke_is_taken_up_at_the_right_byte() {
    let asking = |server: &Server| bring(&FetchArgs { skip: 5, ..args(&server.url()) });
    let partial = |range: &str| {
        Server::saying(&format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nContent-Length: 3\r\n\r\nfgh"
        ))
    };
    let honest = partial("bytes 5-7/8");
    assert!(matches!(asking(&honest), (bytes, Ok(())) if bytes == b"fgh"));
    assert!(honest.asked.lock().unwrap()[0].to_lowercase().contains("range: bytes=5-\r\n"));
    for range in ["bytes 4-6/8", "bytes 0-2/8", "bytes */8", "bytes -3/8", "lines 5-7/8", ""] {
        assert!(
            matches!(asking(&partial(range)), (bytes, Err(FetchError::Http { .. })) if bytes.is_empty()),
            "{range}"
        );
    }
    let begins_again = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcdefgh");
    assert!(matches!(asking(&begins_again), (bytes, Ok(())) if bytes == b"fgh"));
    let all_came = Server::saying("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(asking(&all_came), (bytes, Ok(())) if bytes.is_empty()));
    // The whole stays below the cap, also where it comes in two parts.
    let endless = Server::start(|_, to| {
        to.write_all(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-999/1000\r\n\r\n")?;
        loop {
            to.write_all(&[b'x'; 10])?;
        }
    });
    let (bytes, outcome) = asking(&endless);
    assert!(matches!(outcome, Err(FetchError::TooLarge { .. })) && bytes.len() <= 95, "{}: {outcome:?}", bytes.len());
}

#[test]
fn a_line_that_is_cut_keeps_what_came() {
    let server = Server::start(|_, to| {
        to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n0123456789")?;
        // Unread input of ours makes the kernel reset the connection.
        rustix::net::sockopt::set_socket_linger(&*to, Some(Duration::ZERO)).map_err(io::Error::from)
    });
    let (_, outcome) = bring(&args(&server.url()));
    assert!(matches!(outcome, Err(FetchError::Http { .. })), "{outcome:?}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_, outcome) = bring(&args(&format!("http://{nobody}/file")));
    let said = outcome.unwrap_err().to_string();
    assert!(said.contains("refused"), "{said}");
    let said = bring(&args("http://no-such-host.invalid/file")).1.unwrap_err().to_string();
    assert!(said.contains("no-such-host.invalid"), "{said}");
}

#[test]
fn redirects_are_few_and_lead_nowhere_else() {
    let to = |location: String| {
        Server::saying(&format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    };
    for location in ["file:///etc/passwd", "ftp://127.0.0.1/file", "gopher://127.0.0.1/", "data:,x", "javascript:x"] {
        let (bytes, outcome) = bring(&args(&to(location.to_owned()).url()));
        assert!(outcome.is_err() && bytes.is_empty(), "{location}: {outcome:?}");
    }
    let in_circles = to("/file".to_owned());
    assert!(bring(&args(&in_circles.url())).1.unwrap_err().to_string().contains("too many redirects"));
    assert!(in_circles.asked.lock().unwrap().len() <= 1 + REDIRECTS_MAX);
    let good = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    let mut behind = good.url();
    for redirects in 1..=REDIRECTS_MAX + 1 {
        behind = to(behind).url();
        assert_eq!(bring(&args(&behind)).1.is_ok(), redirects <= REDIRECTS_MAX, "{redirects} redirects");
    }
}

#[test]
fn only_the_proxy_that_was_named_is_asked() {
    let proxy = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nby them");
    let named = Some(format!("http://{}", proxy.address));
    let (bytes, outcome) = bring(&FetchArgs { proxy: named, ..args("http://far.invalid/file") });
    assert!(outcome.is_ok() && bytes == b"by them", "{outcome:?}");
    assert!(proxy.asked.lock().unwrap()[0].starts_with("GET http://far.invalid/file HTTP/1.1\r\n"));
    let bad = FetchArgs { proxy: Some("no address".to_owned()), ..args("http://far.invalid/file") };
    assert!(matches!(bring(&bad).1, Err(FetchError::Http { .. })));
}

/// `openssl s_server -HTTP`: the file that is asked for is the whole answer, its head too. And the port.
struct Tls {
    server: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Tls {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = || {
            let mut command = Command::new("openssl");
            command.current_dir(folder.path()).stdin(Stdio::piped()).stderr(Stdio::null());
            command
        };
        let made = openssl()
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '))
            .args("-keyout key.pem -out cert.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(' '))
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .output()
            .expect("openssl (apt-get install openssl)");
        assert!(made.status.success());
        let mut server = openssl()
            .args("s_server -accept 127.0.0.1:0 -key key.pem -cert cert.pem -HTTP".split(' '))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = io::BufRead::lines(io::BufReader::new(server.stdout.take().unwrap()));
        let port = said.map_while(Result::ok).find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:")?.parse().ok());
        Self { server, folder, port: port.expect("s_server says its port") }
    }

    fn answers(&self, file: &str, text: &str) -> FetchArgs {
        std::fs::write(self.folder.path().join(file), text).unwrap();
        args(&format!("https://localhost:{}/{file}", self.port))
    }

    fn known(&self) -> ClientBuilder {
        let pem = std::fs::read(self.folder.path().join("cert.pem")).unwrap();
        Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn https_is_with_whom_it_says_and_stays_https() {
    let tls = Tls::start();
    let good = tls.answers("good", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    let (bytes, outcome) = bring_as(&good, || tls.known(), PATIENCE);
    assert!(outcome.is_ok() && bytes == b"good", "{outcome:?}");
    let said = bring(&good).1.expect_err("an unknown authority was believed").to_string();
    assert!(said.to_lowercase().contains("certificate"), "{said}");
    let other_name = args(&good.url.replace("localhost", "127.0.0.1"));
    assert!(bring_as(&other_name, || tls.known(), PATIENCE).1.is_err(), "another name was believed");
    let plain = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
    let leads = |file: &str, to: &str| {
        tls.answers(file, &format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
    };
    let (bytes, outcome) = bring_as(&leads("away", &plain.url()), || tls.known(), PATIENCE);
    assert!(outcome.is_err() && bytes.is_empty(), "https led to http: {outcome:?}");
    assert!(plain.asked.lock().unwrap().is_empty());
    let (bytes, outcome) = bring_as(&leads("aside", &good.url), || tls.known(), PATIENCE);
    assert!(outcome.is_ok() && bytes == b"good", "{outcome:?}");
    // A server of plain HTTP at an address of https.
    let brief = Patience { connect: Duration::from_secs(1), ..PATIENCE };
    assert!(bring_as(&args(&plain.url().replace("http:", "https:")), || tls.known(), brief).1.is_err());
}
