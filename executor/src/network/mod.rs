//! Networks: that of the host, or none. And the files about names that a container gets whatever its network.

mod names;

pub use names::{Names, files, host_resolv_conf};
