//! Whatever the text is, parsing and lowering end, with a result or with diagnostics whose spans are within the text.

mod check;

use boxwright_frontend::{ignore, parse};
use check::check;
use proptest::prelude::*;

/// Pieces that Dockerfiles are made of, so that random texts get past the first line.
const PIECES: [&str; 44] = [
    "FROM scratch\n",
    "FROM scratch AS a\n",
    "FROM a\n",
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "CMD ",
    "ENTRYPOINT ",
    "EXPOSE ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "WORKDIR ",
    "VOLUME ",
    "SHELL ",
    "USER ",
    "# escape=`\n",
    "--from=a ",
    "--from=0 ",
    "--chown=x ",
    "--",
    "<<EOF",
    "<<-'E'",
    "EOF\n",
    "E\n",
    "\\\n",
    "`\n",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\"",
    "'",
    "$",
    "${a:-",
    "}",
    "[\"a\"]",
    "[",
    "a=b",
    "é",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_of_pieces_ends(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        check(pieces.concat().as_bytes());
    }

    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
        ignore::parse(&bytes);
    }
}

#[test]
fn large_and_deep_inputs_end() {
    let instructions = format!("FROM scratch\n{}", "ENV A=1\nARG B\nLABEL c=d\nWORKDIR /e\n".repeat(25_000));
    let stages: String =
        (0..5_000).map(|i| format!("FROM scratch AS s{i}\nCOPY --from={} a b\n", i.max(1) - 1)).collect();
    let chain: String = (1..5_000).map(|i| format!("FROM s{} AS s{i}\nRUN true\n", i - 1)).collect();
    let chain = format!("FROM scratch AS s0\nCOPY a b\n{chain}");
    let nested = format!("FROM scratch\nENV A={}{}\n", "${x:-".repeat(1_000), "}".repeat(1_000));
    let long = format!("FROM scratch\nENV A={}\n", "x".repeat(10 << 20));
    let continued = format!("FROM scratch\nRUN {}true\n", "a \\\n".repeat(100_000));
    for text in [instructions, stages, chain, nested, long, continued] {
        check(text.as_bytes());
    }
    check(b"FROM scratch\nENV A=\0 B=\xff\n");
    check(b"# \xff a comment in Latin-1\nFROM scratch\n");
    assert!(!parse(b"# \xff\nFROM scratch\n").has_errors(), "comments may be in any encoding");
    assert!(parse(b"FROM scratch\nENV A=\xff\n").has_errors());
}
