//! Packs the places that the program has to put right when it starts, as it may lie anywhere: 24 bytes for each of them
//! otherwise, half a megabyte, which every command would read.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if knows_packed_relocations() {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The C library that is linked in reads them itself, since 2.36. That of another machine can't be asked.
fn knows_packed_relocations() -> bool {
    let var = |name| std::env::var(name).unwrap_or_default();
    let glibc = var("CARGO_CFG_TARGET_ENV") == "gnu" && var("HOST") == var("TARGET");
    let asked = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let numbers: Vec<u32> = said.split([' ', '.', '\n']).filter_map(|word| word.parse().ok()).collect();
    glibc && numbers >= vec![2, 36]
}
