//! The web server for links: the page, records, and blocks of packs.
//!
//! Invariants: holds no key of any kind and sees ciphertext only; asks the store for nothing outside `share/`, since all
//! it can name are a link's record and a link's pack; its memory is bounded by its options, however many come and
//! however slowly they read. It deliberately knows neither what a record holds nor who may open it: whoever reads
//! verifies, and a gateway that lies is found out.

mod address;
mod answer;
mod blocks;
mod bounded;
mod boxed;
mod budget;
mod export;
mod flight;
mod limits;
mod links;
mod metrics;
mod pace;
mod page;
mod range;
mod routes;
mod server;

pub use address::{AddressRange, AddressRangeError, client_address};
pub use boxed::{BoxError, BoxSource};
pub use export::{Ciphertext, Exported, INSIDE_MAX, export_page};
pub use limits::{Budget, Limits};
pub use page::{page_file, page_hashes};
pub use range::{RangeRefusal, aligned_range};
pub use routes::place_of;
pub use server::{Gateway, GatewayOptions, ListenError, bind, serve};
