//! What must stay so about the code itself. Needs neither root nor network.

#![allow(missing_docs)]

mod boundary;
mod fuzz;
mod negative;
mod seccomp;
mod sources;
mod tidy;
