//! Links: a copy is published, fetched, followed and taken back; what holders, stores and gateways may try is refused.

#[path = "links/attacks.rs"]
mod attacks;
#[path = "support/compare.rs"]
mod compare;
#[path = "support/drive.rs"]
mod drive;
#[path = "links/gateway.rs"]
mod gateway;
#[path = "links/live.rs"]
mod live;
#[path = "links/mounted.rs"]
mod mounted;
#[path = "links/owner.rs"]
mod owner;
#[path = "links/publishing.rs"]
mod publishing;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/s3.rs"]
mod s3;
