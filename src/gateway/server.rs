//! Connections: taken, limited, and ended when nobody asks or reads.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::address::{AddressRange, Visitor};
use super::blocks::Blocks;
use super::budget::Budgets;
use super::limits::Limits;
use super::links::Links;
use super::metrics::Metrics;
use super::pace::Paced;
use super::routes::{Peer, router};
use crate::base::{Clock, LinkId};
use crate::format::ObjectName;
use crate::store::{Op, Store, StoreError, StoreErrorKind};

pub struct GatewayOptions {
    pub limits: Limits,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<AddressRange>,
    /// Whole ids and addresses in the log.
    pub log_details: bool,
}

pub struct Gateway {
    pub(super) blocks: Blocks,
    pub(super) links: Links,
    pub(super) visitors: Budgets<Visitor>,
    pub(super) links_budget: Budgets<LinkId>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) trusted_proxies: Vec<AddressRange>,
    pub(super) log_details: bool,
    limits: Limits,
    store: Arc<dyn Store>,
    open: AtomicU64,
    open_of: Mutex<HashMap<Visitor, usize>>,
}

/// A request that is being answered; dropped with its last byte.
pub(super) struct OpenPlace {
    gateway: Arc<Gateway>,
    visitor: Visitor,
}

/// No request has a longer head.
const HEAD_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// What the kernel holds for a reader; more would hide from us that nobody reads.
const SEND_BUFFER: usize = 256 << 10;
/// At the end, for answers that are on their way.
const FAREWELL: Duration = Duration::from_secs(5);

impl Gateway {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, options: GatewayOptions) -> Arc<Self> {
        let GatewayOptions { limits, trusted_proxies, log_details } = options;
        let metrics = Arc::new(Metrics::default());
        Arc::new(Self {
            blocks: Blocks::new(store.clone(), limits.cache_bytes_max, metrics.clone()),
            links: Links::new(store.clone(), clock, limits.fresh_for),
            visitors: Budgets::new(limits.visitor),
            links_budget: Budgets::new(limits.link),
            metrics,
            trusted_proxies,
            log_details,
            limits,
            store,
            open: AtomicU64::new(0),
            open_of: Mutex::default(),
        })
    }

    /// None when too many are open, of all or of this visitor.
    pub(super) fn open_place(self: Arc<Self>, visitor: Visitor) -> Option<OpenPlace> {
        {
            let mut open_of = self.open_of.lock();
            let own = open_of.get(&visitor).copied().unwrap_or(0);
            if own >= self.limits.open_max_of_visitor || self.open_now() >= self.limits.open_max as u64 {
                return None;
            }
            self.open.fetch_add(1, Ordering::Relaxed);
            open_of.insert(visitor, own + 1);
        }
        Some(OpenPlace { gateway: self, visitor })
    }

    /// Counts what is sent, against who asked and what for.
    pub(super) fn sends(&self, visitor: Visitor, link: LinkId, bytes: u64) {
        let now = tokio::time::Instant::now();
        self.visitors.charge(visitor, bytes, now);
        self.links_budget.charge(link, bytes, now);
        self.metrics.bytes_sent.add(bytes);
    }

    pub(super) fn open_now(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Asks for what no link can have, which costs the store next to nothing.
    pub(super) async fn store_answers(&self) -> Result<(), StoreError> {
        self.store.size(&ObjectName::Share(LinkId([0; 16]), 0)).await.map(drop)
    }

    /// A store that is away is tried again for longer than anybody in a browser waits.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late = |_| StoreError::new(StoreErrorKind::Unreachable, Op::Get, None, "no answer in time");
        tokio::time::timeout(self.limits.store_within, work).await.map_err(late)?
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        let mut open_of = self.gateway.open_of.lock();
        self.gateway.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(own) = open_of.get_mut(&self.visitor) {
            *own -= 1;
            if *own == 0 {
                open_of.remove(&self.visitor);
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "{0} can be reached from other machines, and browsers decrypt only what comes over https: put a TLS proxy in \
         front and say --behind-tls, or listen on 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {0}: {1}")]
    Taken(SocketAddr, std::io::Error),
}

/// Takes the address. Only one of this machine's own, unless a proxy in front speaks TLS.
pub async fn bind(address: SocketAddr, behind_tls: bool) -> Result<TcpListener, ListenError> {
    if !behind_tls && !address.ip().to_canonical().is_loopback() {
        return Err(ListenError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|error| ListenError::Taken(address, error))
}

/// Until `shutdown`, and then for as long as answers are on their way.
pub async fn serve(listener: TcpListener, gateway: Arc<Gateway>, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(gateway.limits.connections_max));
    let router = router(gateway.clone());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        // Who comes when all places are taken waits in the kernel's queue.
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = accepted => match (accepted, place) {
                (Ok((stream, peer)), Ok(place)) => {
                    gateway.metrics.connections.add(1);
                    connections.spawn(connection(stream, peer, place, router.clone(), gateway.clone()));
                }
                (Ok(_), Err(_)) => break,
                (Err(error), _) => {
                    // Mostly too many open files: trying at once again would only burn.
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(FAREWELL, async {
        while gateway.open_now() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await
        }
    })
    .await;
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    router: Router,
    gateway: Arc<Gateway>,
) {
    let _place = place;
    let limits = gateway.limits;
    // Both only make things better.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER);
    let paced = Paced::new(stream, limits.slow_after, limits.slow_bytes, gateway.metrics.clone());
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer.ip()))));
    // How a client ends its connection is no news.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_within)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(paced), service)
        .await;
}
