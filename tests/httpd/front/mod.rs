//! What httpd, its configuration and its other modules have to say.

mod advice;
mod bad_config;
mod contexts;
mod htaccess;
mod httpd_features;
mod opening;
mod other_modules;
mod refusals;
mod response_headers;
pub mod standalone;
