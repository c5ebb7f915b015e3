//! The HTTP statuses that hooks answer with (RFC 9110 section 15), under the names of httpd.h without `HTTP_`.

pub const SWITCHING_PROTOCOLS: u16 = 101;
pub const BAD_REQUEST: u16 = 400;
pub const FORBIDDEN: u16 = 403;
pub const UPGRADE_REQUIRED: u16 = 426;
pub const INTERNAL_SERVER_ERROR: u16 = 500;
pub const NOT_IMPLEMENTED: u16 = 501;
pub const BAD_GATEWAY: u16 = 502;
pub const SERVICE_UNAVAILABLE: u16 = 503;
pub const GATEWAY_TIMEOUT: u16 = 504;
