//! vllm-metal: vLLM's own front end and metrics on Apple GPUs.

use super::vllm;
use crate::measure::scrape::Names;

pub(crate) const NAMES: &Names = vllm::NAMES;
