//! Holds the parser to the tables in the folder that `BOXWRIGHT_CONFORMANCE` names, one test a table. Where the
//! variable is not set the data is absent: each test then says so. What may differ is listed with its reason.

mod conformance {
    pub(crate) mod ast;
    pub(crate) mod cases;
    pub(crate) mod dump;
    pub(crate) mod gitref;
    pub(crate) mod instructions;
    pub(crate) mod lint;
    pub(crate) mod ports;
    pub(crate) mod shell;
    pub(crate) mod tables;
}
