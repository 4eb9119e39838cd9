//! `hushfs gateway`: the web server for links, in the foreground.

use std::sync::Arc;
use std::time::Duration;

use super::args::GatewayArgs;
use super::commands::say;
use super::drive;
use super::exit::{Code, Failure, Outcome};
use super::logging::{self, Log};
use super::open_files;
use super::serve::Signals;
use crate::base::SystemClock;
use crate::gateway::{Budget, Gateway, GatewayOptions, Limits, ListenError, bind, page_hashes, serve};

pub fn gateway(args: GatewayArgs) -> Outcome {
    if args.page_hashes {
        let lines: Vec<_> = page_hashes().into_iter().map(|(name, hash)| format!("{hash}  {name}")).collect();
        return say(&lines.join("\n"));
    }
    let store = args.reach.store(args.url.as_deref().unwrap_or_default())?;
    logging::start(&Log::Stderr)?;
    open_files::raise_limit();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let store = drive::store(&store)?;
        let listener = bind(args.listen, args.behind_tls).await.map_err(|error| match error {
            ListenError::NotLoopback(_) => Failure::from(error).with_code(Code::Usage),
            ListenError::Taken(..) => Failure::from(error),
        })?;
        let address = listener.local_addr()?;
        let gateway = Gateway::new(store, Arc::new(SystemClock), options(&args));
        let mut signals = Signals::listen()?;
        say(&format!("serving links on http://{address}"))?;
        serve(listener, gateway, signals.next()).await;
        Ok(())
    })
}

fn options(args: &GatewayArgs) -> GatewayOptions {
    let limits = Limits {
        visitor: Budget { requests_per_minute: args.address_requests, bytes_per_hour: args.address_bytes.0 },
        link: Budget { requests_per_minute: args.link_requests, bytes_per_hour: args.link_bytes.0 },
        open_max: args.open_max,
        open_max_of_visitor: args.address_open_max,
        connections_max: args.open_max.saturating_mul(4),
        cache_bytes_max: args.cache_size.0,
        slow_after: Duration::from_secs(args.slow_after),
        ..Limits::default()
    };
    GatewayOptions { limits, trusted_proxies: args.trust_proxy.clone(), log_details: args.log_details }
}
