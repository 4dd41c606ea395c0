//! The endpoints of a model server.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use hyper::body::Bytes;
use pomarium_api::pool::EngineType;
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::MetricsAnswer;
use super::pace::{Command, Submission};
use super::process::{Presence, State};
use super::stream::{Answer, Dialect, EventStream, Produced};
use crate::router::PROMPT_TOKENS;

/// Longest request body, in bytes.
const MAX_BODY: usize = 8 << 20;
/// Length of an answer whose request does not say.
const DEFAULT_OUTPUT: u32 = 128;
/// Characters in a token, roughly.
const CHARACTERS_PER_TOKEN: usize = 4;
/// How much a [`MetricsAnswer::Huge`] is.
const HUGE: usize = 64 << 20;

/// Everything a process answers.
pub(crate) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(text))
        .route("/v1/models", get(models))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/slots", get(slots))
        .route("/props", get(props))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

async fn chat(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Bytes) -> Response {
    complete(&state, &headers, &body, Dialect::Chat).await
}

async fn text(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Bytes) -> Response {
    complete(&state, &headers, &body, Dialect::Text).await
}

async fn complete(state: &Arc<State>, headers: &HeaderMap, body: &[u8], dialect: Dialect) -> Response {
    if !state.is_loaded() {
        return loading();
    }
    let arrived = state.clock.now();
    let asked: Completion = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(problem) => return refused(StatusCode::BAD_REQUEST, "invalid_request_error", &problem.to_string()),
    };
    let output = asked
        .max_completion_tokens
        .or(asked.max_tokens)
        .unwrap_or(DEFAULT_OUTPUT)
        .max(1);
    let prompt = prompt_tokens(headers, &asked);
    if u64::from(prompt) + u64::from(output) > state.times.kv_tokens {
        let message = format!(
            "the request needs {} tokens of context, {} fit",
            u64::from(prompt) + u64::from(output),
            state.times.kv_tokens
        );
        return refused(StatusCode::BAD_REQUEST, "exceed_context_size_error", &message);
    }

    let request = state.submitted.fetch_add(1, Ordering::AcqRel);
    let mut presence = Presence::enter(state, request);
    let produced = Arc::new(Produced::default());
    let submission = Submission {
        request,
        arrived,
        prompt,
        output,
        produced: Arc::clone(&produced),
    };
    if state.commands.send(Command::Submit(submission)).is_err() {
        return refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable_error",
            "the engine has stopped",
        );
    }
    let answer = Answer {
        dialect,
        id: request,
        created: chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).timestamp(),
        model: state.kind.model.as_str().into(),
        prompt_tokens: prompt,
        tokens: output,
        usage: asked.stream_options.is_some_and(|options| options.include_usage),
    };
    if asked.stream {
        let events = EventStream::new(&answer, produced, presence);
        return ([(header::CONTENT_TYPE, "text/event-stream")], Body::new(events)).into_response();
    }
    produced.all(output).await;
    presence.complete();
    Json(answer.whole()).into_response()
}

/// As the header says, else by the length of the text.
fn prompt_tokens(headers: &HeaderMap, asked: &Completion) -> u32 {
    let told = headers
        .get(PROMPT_TOKENS)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    told.unwrap_or_else(|| {
        let messages = asked
            .messages
            .iter()
            .map(|message| characters(&message.content))
            .sum::<usize>();
        let tokens = (messages + characters(&asked.prompt)).div_ceil(CHARACTERS_PER_TOKEN);
        u32::try_from(tokens).unwrap_or(u32::MAX)
    })
    .max(1)
}

/// Text in a prompt, whatever its form: a text, or parts with a text each.
fn characters(content: &Value) -> usize {
    match content {
        Value::String(text) => text.chars().count(),
        Value::Array(parts) => parts
            .iter()
            .map(|part| part.get("text").map_or_else(|| characters(part), characters))
            .sum(),
        _ => 0,
    }
}

async fn models(Shared(state): Shared<Arc<State>>) -> Response {
    if !state.is_loaded() {
        return loading();
    }
    let model = json!({"id": state.kind.model, "object": "model", "created": 0, "owned_by": "pomarium"});
    Json(json!({"object": "list", "data": [model]})).into_response()
}

async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    if state.is_loaded() {
        Json(json!({"status": "ok"})).into_response()
    } else {
        loading()
    }
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let broken = state.ailments.borrow().metrics;
    let plain = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    match broken {
        None => {
            let figures = state.figures().clone();
            let text = figures.text(&state.kind, state.queued(&figures));
            (plain, text).into_response()
        }
        Some(MetricsAnswer::NotFound) => StatusCode::NOT_FOUND.into_response(),
        Some(MetricsAnswer::Hang) => std::future::pending().await,
        Some(MetricsAnswer::Garbage) => (
            plain,
            &b"\xff\xfe{{{ requests_processing NaN\n\0\0llamacpp:requests_processing{ 0"[..],
        )
            .into_response(),
        Some(MetricsAnswer::Huge) => {
            let piece = Bytes::from("unrelated_metric_of_no_use{label=\"value\"} 1\n".repeat(1_000));
            let pieces = std::iter::repeat_n(piece.clone(), HUGE / piece.len());
            let stream = futures::stream::iter(pieces.map(Ok::<_, std::convert::Infallible>));
            (plain, Body::from_stream(stream)).into_response()
        }
    }
}

/// llama.cpp's view of its batch.
async fn slots(Shared(state): Shared<Arc<State>>) -> Response {
    if state.kind.engine != EngineType::LlamaCpp {
        return StatusCode::NOT_FOUND.into_response();
    }
    if !state.is_loaded() {
        return loading();
    }
    let running = state.figures().running;
    let slot = |id: u32| json!({"id": id, "n_ctx": state.times.kv_tokens, "is_processing": u64::from(id) < running});
    Json((0..state.times.max_batch).map(slot).collect::<Vec<_>>()).into_response()
}

async fn props(Shared(state): Shared<Arc<State>>) -> Response {
    if state.kind.engine != EngineType::LlamaCpp {
        return StatusCode::NOT_FOUND.into_response();
    }
    Json(json!({"total_slots": state.times.max_batch, "model_alias": state.kind.model})).into_response()
}

fn loading() -> Response {
    refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "Loading model")
}

fn refused(status: StatusCode, kind: &str, message: &str) -> Response {
    (
        status,
        Json(json!({"error": {"code": status.as_u16(), "type": kind, "message": message}})),
    )
        .into_response()
}
