//! The Dockerfile compiler: text to syntax tree ([`parse`]) to build definition ([`lower()`]), with diagnostics.
//! Pure: it reads no file, no environment and no registry; whoever calls it hands everything in.

pub mod ast;
pub mod csv;
pub mod diagnostic;
pub mod gitref;
pub mod ignore;
pub mod lint;
mod lower;
mod notation;
pub mod size;
pub mod source;
pub mod syntax;

pub use ast::Dockerfile;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use lower::{
    Argument, Bases, CACHE_NAMESPACE, CacheUse, Credential, Epoch, HOSTNAME, ImageRequest, Lowered,
    LoweredImage, NamedContext, NamedContexts, Options, Origin, Outline, PortMapping, ResolvedBase,
    can_be_told, check_syntax, epoch, is_signal, lower, needed_images, outline, parse_context_name,
    parse_ports, proxies,
};
pub use notation::parse_duration;
pub use syntax::{Parsed, parse};
