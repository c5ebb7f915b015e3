//! TLS 1.3 connections that httpd has opened, from there on: its records ([`record`]), and the bytes in them ([`stream`]).

pub mod record;
pub(crate) mod stream;
