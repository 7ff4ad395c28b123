//! What the tests of several crates share: fixtures, and real peers (registry, dockerd, podman) started
//! for one test run. Nothing here is part of the product.
