//! A wire that keeps every byte which goes one way: from who connects to whom they wanted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub struct Tap {
    /// Where to connect to instead.
    pub endpoint: String,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    pub fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (sent, to) = (Arc::new(Mutex::new(Vec::new())), to.to_owned());
        let kept = sent.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&to).expect("the server");
                let (back, forth) = (client.try_clone().expect("a stream"), server.try_clone().expect("a stream"));
                let kept = kept.clone();
                std::thread::spawn(move || carry(client, forth, |bytes| kept.lock().unwrap().extend_from_slice(bytes)));
                std::thread::spawn(move || carry(server, back, |_| {}));
            }
        });
        Self { endpoint, sent }
    }

    pub fn everything_sent(&self) -> String {
        String::from_utf8_lossy(&self.sent.lock().unwrap()).into_owned()
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        see(&buffer[..len]);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    // Either side's end is the other's.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
