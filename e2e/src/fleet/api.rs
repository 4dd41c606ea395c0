//! The API of the fleet: the lessor's, that of the switch of own machines, and that of whoever makes things go wrong.
//!
//! | call | answer |
//! |---|---|
//! | `GET /v1/groups/{group}/servers` | 200 `{"servers": […]}` |
//! | `PUT`, `DELETE /v1/groups/{group}/servers/{name}` | as `operator/docs/interfaces.md` says |
//! | `POST /v1/faults` with a [`Fault`] | 201 `{"id"}` |
//! | `GET /v1/faults` | 200, all that are active, by id |
//! | `DELETE /v1/faults/{id}` | 204 |
//! | `GET /v1/summary` | 200 with the [`super::Summary`] |

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

use super::faults::Fault;
use super::machines::Refusal;
use super::{FaultId, Shared, summary};

/// Longest name of a server: it becomes a Node's.
const MAX_NAME: usize = 63;

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    if let Err(error) = axum::serve(listener, router(shared)).await {
        tracing::error!(%error, "serving the API of the fleet");
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/groups/{group}/servers", get(servers))
        .route("/v1/groups/{group}/servers/{name}", put(request).delete(release))
        .route("/v1/faults", post(inject).get(faults))
        .route("/v1/faults/{id}", axum::routing::delete(clear))
        .route(
            "/v1/summary",
            get(async |State(shared): State<Arc<Shared>>| Json(summary::of(&shared))),
        )
        .with_state(shared)
}

/// A refusal, on its way out.
type Refused = axum::response::ErrorResponse;

fn no_group(name: &str) -> Refused {
    not_found(&format!("the fleet has no group {name}")).into()
}

async fn servers(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Result<Response, Refused> {
    let servers: Vec<_> = shared
        .groups
        .get(&name)
        .ok_or_else(|| no_group(&name))?
        .machines()
        .servers()
        .cloned()
        .collect();
    Ok(Json(json!({"servers": servers})).into_response())
}

async fn request(
    State(shared): State<Arc<Shared>>,
    Path((in_group, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let group = shared.groups.get(&in_group).ok_or_else(|| no_group(&in_group))?;
    if !is_name(&name) {
        let message = format!("{name:?} is not a name for a Node: lower-case letters, digits and -");
        return Err((StatusCode::BAD_REQUEST, Json(json!({"message": message}))).into());
    }
    let (server, made) = shared
        .request(group, &name)
        .map_err(|refusal| Refused::from(conflict(refusal, &in_group)))?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(server)).into_response())
}

async fn release(
    State(shared): State<Arc<Shared>>,
    Path((in_group, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let group = shared.groups.get(&in_group).ok_or_else(|| no_group(&in_group))?;
    match shared
        .release(group, &name)
        .map_err(|refusal| Refused::from(conflict(refusal, &in_group)))?
    {
        Some(server) => Ok((StatusCode::ACCEPTED, Json(server)).into_response()),
        None => Ok(Json(json!({"name": name})).into_response()),
    }
}

async fn inject(State(shared): State<Arc<Shared>>, Json(fault): Json<Fault>) -> Result<Response, Refused> {
    let id = shared
        .inject(fault)
        .map_err(|unknown| Refused::from(not_found(&unknown.to_string())))?;
    Ok((StatusCode::CREATED, Json(json!({"id": id}))).into_response())
}

async fn faults(State(shared): State<Arc<Shared>>) -> Response {
    let active = shared.faults().active().clone();
    Json(json!({"faults": active})).into_response()
}

async fn clear(State(shared): State<Arc<Shared>>, Path(id): Path<FaultId>) -> Response {
    if shared.clear(id) {
        StatusCode::NO_CONTENT.into_response()
    } else {
        not_found(&format!("there is no fault {id}"))
    }
}

fn not_found(message: &str) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"message": message}))).into_response()
}

fn conflict(refusal: Refusal, group: &str) -> Response {
    let message = match refusal {
        Refusal::OutOfStock => format!("no machine of {group} is to be had"),
        Refusal::Recycling => format!("a machine of {group} has to be cleaned first"),
        Refusal::AtMaximum => format!("{group} has all its machines already"),
        Refusal::AlwaysOn => format!("the machines of {group} cannot be switched off"),
    };
    (
        StatusCode::CONFLICT,
        Json(json!({"reason": refusal, "message": message})),
    )
        .into_response()
}

fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_NAME
        && !name.is_empty()
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
