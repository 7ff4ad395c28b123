//! Archives both ways between us and Debian's dockerd and podman.

use boxwright_cache::export::save;
use boxwright_cache::oci::Reference;
use boxwright_testdata::peer::{Dockerd, Podman};

use crate::archives::{built, load_bytes};
use crate::images::Place;

/// A file with what `save` writes for an image of so many names, and the image's id.
fn saved(place: &Place, names: usize) -> (String, String) {
    let mut image = built(place);
    image.names.truncate(names);
    let path = place.dir.path().join("saved.tar");
    let mut file = std::fs::File::create(&path).unwrap();
    save(&place.store, std::slice::from_ref(&image), &mut file, &place.cancel).unwrap();
    (path.display().to_string(), image.stored.id().hex())
}

fn comes_back(path: &str, id: &str, name: &str) {
    let place = Place::new();
    let loaded = load_bytes(&place, &std::fs::read(path).unwrap()).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id.hex(), id, "the same config, so the same image");
    assert_eq!(loaded[0].names.iter().map(Reference::to_string).collect::<Vec<_>>(), [name]);
    let image = place.store.image(&loaded[0].id).unwrap().unwrap();
    assert_eq!(place.read(&image, "/etc/name").as_deref(), Some("top"));
}

#[test]
fn docker_loads_what_is_saved_and_what_docker_saves_loads() {
    let (place, docker) = (Place::new(), Dockerd::start());
    let (path, id) = saved(&place, 2);
    docker.docker(&["load", "-i", &path]).says("Loaded image: mine/app:1").ok();
    let inspected = docker.docker(&["image", "inspect", "-f", "{{.Id}} {{.RepoTags}}", "mine/app:2"]).ok();
    assert_eq!(inspected.trim(), format!("sha256:{id} [mine/app:1 mine/app:2]"));
    let back = place.dir.path().join("back.tar").display().to_string();
    docker.docker(&["save", "-o", &back, "mine/app:2"]).ok();
    comes_back(&back, &id, "docker.io/mine/app:2");
}

#[test]
fn podman_loads_what_is_saved_and_what_podman_saves_loads() {
    let (place, podman) = (Place::new(), Podman::new());
    // Of several names podman reads docker's part of the archive alone, and puts `localhost/` before short names.
    let (path, _) = saved(&place, 2);
    podman.podman(&["load", "-i", &path]).ok();
    podman.podman(&["image", "exists", "localhost/mine/app:2"]).ok();
    let (path, id) = saved(&place, 1);
    podman.podman(&["load", "-i", &path]).ok();
    let inspected = podman.podman(&["image", "inspect", "-f", "{{.Id}}", "docker.io/mine/app:1"]).ok();
    assert_eq!(inspected.trim(), id);
    let back = place.dir.path().join("back.tar").display().to_string();
    podman.podman(&["save", "-o", &back, "docker.io/mine/app:1"]).ok();
    comes_back(&back, &id, "docker.io/mine/app:1");
    let oci = place.dir.path().join("oci.tar").display().to_string();
    podman.podman(&["save", "--format", "oci-archive", "-o", &oci, "docker.io/mine/app:1"]).ok();
    comes_back(&oci, &id, "docker.io/mine/app:1");
}
