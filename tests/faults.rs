//! What breaks around a drive, and what must not break with it: the store fails, the local disk fails, objects in
//! the store are damaged. In this process, over a store and a disk that fail as told.

#[path = "faults/damage.rs"]
mod damage;
#[path = "faults/devices.rs"]
mod devices;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/late.rs"]
mod late;
#[path = "faults/replay.rs"]
mod replay;
#[path = "support/rig.rs"]
mod rig;
#[path = "faults/rows.rs"]
mod rows;
#[path = "faults/staging.rs"]
mod staging;
#[path = "faults/store.rs"]
mod store;
