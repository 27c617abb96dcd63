//! A verdict in the forms it is told in. Pure: the same verdict gives the same bytes.

pub mod api;
pub mod health_json;
pub mod page;
pub mod text;
