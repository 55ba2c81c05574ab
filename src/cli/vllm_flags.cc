#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "cli/arguments.h"

namespace cachalot {
namespace {

// Flags stand between spaces, each as "NAME:KIND", "NAME/-SHORT:KIND" or "NAME:KIND=NEUTRAL" (VllmFlag says what that
// is).
struct Working {
  std::string_view flags;
  std::string_view remark = "", own_name = "";
};
struct Reason {
  std::string_view sentence;
  std::string_view taken, refused = "";
};

// Those that mean here what they mean there.
constexpr Working kWorking[] = {
    {"block-size:whole data-parallel-address/-dpa:text data-parallel-rank/-dpn:whole "
     "data-parallel-rpc-port/-dpp:whole default-chat-template-kwargs:json disable-log-stats:switch "
     "enable-expert-parallel/-ep:switch enable-force-include-usage:switch enable-log-requests:switch "
     "enable-prefix-caching:switch enable-ssl-refresh:switch exclude-tools-when-tool-choice-none:switch host:text "
     "kv-cache-memory-bytes:whole log-level:text max-logprobs:whole "
     "max-num-batched-tokens:whole max-num-seqs:whole num-gpu-blocks-override:whole num-scheduler-steps:whole "
     "override-generation-config:json "
     "port:whole scheduling-policy:text served-model-name:list sse-keep-alive-interval:whole "
     "ssl-ca-certs:text ssl-cert-reqs:whole ssl-certfile:text ssl-ciphers:text ssl-keyfile:text "
     "tensor-parallel-size/-tp:whole trust-request-chat-template:switch uds:text"},
    {"allow-credentials:switch allowed-headers:list allowed-methods:list", "of pages that --allowed-origins names"},
    {"allowed-origins:list", "absent here: none; pages of other addresses may not ask"},
    {"api-key:list", "or CACHALOT_API_KEY, or VLLM_API_KEY; --api-key-file gives each a name and limits"},
    {"chat-template:text", "a file, or the template itself"},
    {"config:text", "a YAML file of flags; those of the command line win"},
    {"data-parallel-size/-dp:whole", "this process is one of so many replicas; `cachalot up` starts them all"},
    {"data-parallel-start-rank/-dpr:whole", "the one replica of this process", "data-parallel-rank"},
    {"device-memory-utilization:real", "", "gpu-memory-utilization"},
    {"disable-log-requests:switch", "as --no-enable-log-requests", "no-enable-log-requests"},
    {"dtype:text", "half and float16 are computed as bfloat16, with a line"},
    {"enable-reasoning:switch", "with and without --reasoning-parser"},
    {"enable-eplb:switch", "experts are copied beside the steps; docs/parallelism.md"},
    {"enable-fault-tolerance:switch", "ranks that end are started again while the others go on; docs/parallelism.md"},
    {"eplb-config:json",
     "num_redundant_experts, window_size, step_interval, log_balancedness and its interval; of the "
     "others a line says that there is no choice"},
    {"generation-config:text", "auto, vllm, or a folder"},
    {"gpu-memory-utilization:real", "of the machine's memory"},
    {"max-model-len:whole", "auto and -1: the model's, cut to what the KV cache holds"},
    {"max-num-queued-reqs:whole", "of requests that wait; 0: no bound"},
    {"max-num-queued-tokens:whole", "of the prompts of requests that wait"},
    {"model:text", "a folder; also the word behind `serve`"},
    {"otlp-traces-endpoint:text", "over HTTP: http://HOST:4318/v1/traces"},
    {"reasoning-parser:text", "those that divide at </think>: deepseek_r1, qwen3, ..."},
    {"return-tokens-as-token-ids:switch", "a request may ask otherwise"},
    {"seed:whole", "of requests that bring none; absent here: a random one each"},
    {"shutdown-timeout:whole", "", "drain-seconds"},
    {"tokenizer:text", "a folder"},
    {"tool-call-parser:text", "absent: as the chat template shows"},
};

// Why all others are taken, and change nothing, or are refused.
constexpr Reason kReasons[] = {
    {"it is for plugins of vLLM's platforms", "additional-config:json={}"},
    {"a server's log is of one replica", "aggregate-engine-logging:switch=false"},
    {"--transports chooses: shared memory inside a node, UCX between nodes", "all2all-backend:text"},
    {"the model's files say how each weight is stored", "allow-deprecated-quantization:switch=false"},
    {"the models here read text: there are no images, sound or video",
     "allowed-local-media-path:text allowed-media-domains:list disable-chunked-mm-input:switch=false "
     "ec-manager-config:json={} enable-mm-processor-stats:switch=false interleave-mm-strings:switch=false "
     "language-model-only:switch=true limit-mm-per-prompt:json={} media-io-kwargs:json={} "
     "mm-device-do-normalize:switch=true|false mm-encoder-attn-backend:text mm-encoder-attn-dtype:text "
     "mm-encoder-fp8-scale-path:text mm-encoder-fp8-scale-save-margin:real mm-encoder-fp8-scale-save-path:text "
     "mm-encoder-tp-mode:text mm-hasher-algorithm:text mm-ipc-gpu-memory-gb:real mm-processor-cache-gb:real=0 "
     "mm-processor-cache-type:text mm-processor-device:text mm-processor-kwargs:json={} "
     "mm-shm-cache-max-object-size-mb:whole mm-tensor-ipc:text skip-mm-profiling:switch=true "
     "trust-request-mm-kwargs:switch=false video-pruning-method:text video-pruning-rate:real=0",
     "ec-transfer-config:json={} enable-mm-embeds:switch=false mm-encoder-only:switch=false"},
    {"OpenAI's API is the only one",
     "anthropic-disabled-thinking-effort:text=auto cohere-format:text cohere-is-reasoning-model:switch=true"},
    {"one process answers, with --io-threads threads", "api-server-count/-asc:whole=1"},
    {"the next step is planned when the last one's tokens are known", "async-scheduling:switch=false"},
    {"there is one kernel for each instruction set; --isa chooses",
     "attention-backend:text attention-config/-ac:json={} disable-cascade-attn:switch=true "
     "enable-flashinfer-autotune:switch=false ir-op-priority:json={} kernel-config:json={} linear-backend:text=auto "
     "moe-backend:text=auto sparse-indexer-topk-backend:text=auto"},
    {"answers carry no routed experts or hidden states", "", "aux-output-config:json={}"},
    {"templates are given a message's text as one string (string)", "",
     "chat-template-content-format:text=auto|string"},
    {"no code is loaded from outside the program", "code-revision:text",
     "io-processor-plugin:text logits-processors:list middleware:text model-class-overrides:json={} "
     "reasoning-parser-plugin:text scheduler-cls:text tool-parser-plugin:text worker-cls:text=auto "
     "worker-extension-cls:text"},
    {"`cachalot bench step --trace` shows layers", "enable-layerwise-nvtx-tracing:switch=false"},
    {"nothing is compiled at run time, and there are no graphs to capture",
     "compilation-config/-cc:json={} cudagraph-capture-sizes:list cudagraph-metrics:switch=false "
     "enable-trace-replay:switch=false enforce-eager:switch=true jit-monitor-mode:text=warn "
     "jit-monitor-verbose:switch=false max-cudagraph-capture-size:whole max-seq-len-to-capture:whole "
     "optimization-level/-O:text"},
    {"config.json is HuggingFace's (hf)", "", "config-format:text=auto|hf"},
    {"text is generated; nothing is pooled, embedded or classified", "enable-flash-late-interaction:switch=true|false",
     "convert:text=auto|none pooler-config:json={} runner:text=auto|generate task:text=auto|generate"},
    {"a sequence's KV cache is not divided among ranks",
     "cp-kv-cache-interleave-size:whole=1 dcp-comm-backend:text dcp-kv-cache-interleave-size:whole=1 "
     "dcp-q-replicate:switch=false"},
    {"--start-timeout and --failure-timeout-ms hold",
     "cpu-distributed-timeout-seconds:whole distributed-timeout-seconds:whole"},
    {"weights and KV cache lie in the node's own memory already",
     "cpu-offload-gb:real=0 cpu-offload-params:list enable-cumem-allocator:switch=false kv-offloading-backend:text "
     "kv-offloading-size:real=0 offload-backend:text=auto offload-group-size:whole=0 offload-num-in-group:whole "
     "offload-params:list offload-prefetch-step:whole"},
    {"/metrics has what is measured here (docs/operations.md)",
     "custom-histogram-buckets:json={} kv-cache-metrics:switch=false kv-cache-metrics-sample:real "
     "show-hidden-metrics-for-version:text"},
    {"replicas are processes that meet at --data-parallel-address (mp)", "", "data-parallel-backend/-dpb:text=mp"},
    {"each replica has an address of its own anyway; `cachalot router` or another balancer stands before them",
     "data-parallel-external-lb/-dpe:switch=false"},
    {"one process is one replica; `cachalot up` starts several with a router",
     "data-parallel-supervisor-port:whole dp-supervisor-probe-failure-threshold:whole "
     "dp-supervisor-probe-interval-s:real dp-supervisor-probe-timeout-s:real",
     "data-parallel-hybrid-lb/-dph:switch=false data-parallel-multi-port-external-lb/-dpm:switch=false "
     "data-parallel-size-local/-dpl:whole=1"},
    {"a rank computes one batch at a time",
     "dbo-decode-token-threshold:whole dbo-prefill-token-threshold:whole enable-dbo:switch=false "
     "ubatch-size:whole=0"},
    {"a sequence's KV cache is not divided among ranks; --data-parallel-size holds more sequences", "",
     "decode-context-parallel-size/-dcp:whole=1"},
    {"there are no LoRA adapters",
     "default-mm-loras:json={} enable-mixed-moe-lora-format:switch=false enable-moe-shared-loras:switch=false "
     "enable-tower-connector-lora:switch=false fully-sharded-loras:switch=false lora-dtype:text=auto "
     "lora-target-modules:list max-cpu-loras:whole max-lora-cls-labels:whole max-lora-rank:whole max-loras:whole "
     "specialize-active-lora:switch=false",
     "enable-lora:switch=false lora-modules:list"},
    {"the program has one device, the CPU", "device:text=cpu|auto"},
    {"the program has one device, the CPU; ranks share out its cores", "device-ids:text"},
    {"the models here write from left to right", "", "diffusion-config/-dc:json={}"},
    {"--enable-log-requests is the access log; health questions and the page are not in it",
     "disable-access-log-for-endpoints:text disable-uvicorn-access-log:switch=true"},
    {"traces have queue, prefill and decode; `cachalot bench step --trace` shows steps",
     "collect-detailed-traces:list"},
    {"the scheduler has one plan (docs/architecture.md)",
     "disable-async-output-proc:switch=false long-prefill-token-threshold:whole=0 "
     "long-prefill-token-threshold-adaptive:switch=false performance-mode:text=balanced "
     "prefill-schedule-interval:whole=1 scheduler-reserve-full-isl:switch=true|false"},
    {"there is one all-reduce", "disable-custom-all-reduce:switch=false"},
    {"/docs and /openapi.json say what docs/api.md says, and nothing secret", "disable-fastapi-docs:switch=true"},
    {"the HTTP side is in the process of rank 0", "disable-frontend-multiprocessing:switch=false"},
    {"there is one kind of KV cache", "disable-hybrid-kv-cache-manager:switch=false"},
    {"all ranks meet at --data-parallel-address and --data-parallel-rpc-port",
     "disable-nccl-for-dp-synchronization:switch=true master-addr:text master-port:whole"},
    {"the models here have no sliding window",
     "disable-sliding-window:switch=true swa-bounded-replay:switch=true|false"},
    {"ranks are always processes",
     "distributed-executor-backend:text=mp|uni ray-workers-use-nsight:switch=false worker-use-ray:switch=false"},
    {"nothing is downloaded: --model is a folder", "download-dir:text hf-token:optional ignore-patterns:list"},
    {"replicas that share experts agree on each step", "dp-sync-interval:whole"},
    {"the number of replicas is that of the start", "elastic-ep-max-dp-size:whole", "enable-elastic-ep:switch=false"},
    {"a model calls the tools of a request whenever its chat template, or --tool-call-parser, says how",
     "enable-auto-tool-choice:switch=true"},
    {"calls of tools that say strict, and those that must come, are held to the tools' schemas",
     "tool-strict-level:text=auto"},
    {"rank 0 of a replica samples", "enable-batch-sharded-sampling:switch=false"},
    {"long prompts are always cut into pieces", "enable-chunked-prefill:switch=true"},
    {"a rank reads only the weights that it holds", "enable-ep-weight-filter:switch=true"},
    {"sequence parallelism is always on", "enable-hc-sp:switch=false"},
    {"answers are not logged", "enable-log-deltas:switch=true|false"},
    {"answers are not logged, whatever the level", "enable-log-outputs:switch=false"},
    {"`cachalot bench step --trace` shows steps", "enable-logging-iteration-details:switch=false"},
    {"the models here have no state-space layers",
     "enable-mamba-cache-stochastic-rounding:switch=false enable-mamba-shared-prefix-checkpoint:switch=false "
     "gdn-prefill-backend:text kda-decode-backend:text kda-prefill-backend:text mamba-backend:text "
     "mamba-block-size:whole mamba-cache-dtype:text=auto mamba-cache-mode:text=none mamba-cache-philox-rounds:whole "
     "mamba-ssm-cache-dtype:text=auto mamba-ssu-algorithm:text replayssm-buffer-len:whole "
     "use-replayssm:switch=false"},
    {"`cachalot bench model` compares speed with the machine's bounds", "enable-mfu-metrics:switch=false"},
    {"a server does not sleep: stop it, and start it again",
     "enable-nccl-comm-suspend:switch=false sleep-mode-offload-cudagraph:switch=false "
     "sleep-preserve-parameter-names:list",
     "enable-sleep-mode:switch=false"},
    {"/docs needs nothing from elsewhere", "enable-offline-docs:switch=false"},
    {"answers carry no metrics; /metrics has histograms", "", "enable-per-request-metrics:switch=false"},
    {"prompts are text or token ids", "", "enable-prompt-embeds:switch=false"},
    {"usage always has prompt_tokens_details", "enable-prompt-tokens-details:switch=true"},
    {"answers always have X-Request-Id", "enable-request-id-headers:switch=true"},
    {"answers carry no routed experts", "", "enable-return-routed-experts:switch=false"},
    {"requests are not split over servers; `cachalot router` shares them out", "", "enable-scale-out:switch=false"},
    {"/load is always there", "enable-server-load-tracking:switch=true"},
    {"ranks of a node always share memory", "enable-shm-tensor-arena:switch=true"},
    {"there is no /tokenizer_info; /tokenize is", "", "enable-tokenizer-info-endpoint:switch=false"},
    {"the models here have no such layers", "engram-config:json={}"},
    {"experts stand on ranks in the order of their numbers (linear), or as --expert-placement says",
     "expert-placement-strategy:text=linear"},
    {"variables of vLLM that are not read are not looked at (docs/vllm-flags.md)",
     "fail-on-environ-validation:switch=false"},
    {"--failure-timeout-ms and --wait-on-failure hold", "fault-tolerance-config:json={}"},
    {"system_fingerprint names the program and the model", "fingerprint-mode:text=full|hash", "fingerprint-value:text"},
    {"HTTP is the only protocol", "", "grpc:switch=false grpc-port:whole"},
    {"there is no structured output yet; a request that asks for it is refused",
     "guided-decoding-backend:text structured-outputs-config:json={}"},
    {"a request's head has a bound in bytes, 32 KiB", "h11-max-header-count:whole"},
    {"a request's head may have 32 KiB, its body 32 MiB", "h11-max-incomplete-event-size:whole"},
    {"each replica answers; nobody need ask this one", "headless:switch=false"},
    {"config.json lies in the model's folder", "", "hf-config-path:text"},
    {"what config.json says holds; change it in a copy of the folder", "",
     "hf-overrides:json={} rope-scaling:json={} rope-theta:real"},
    {"the KV cache has the compute type; --dtype sets both",
     "kv-cache-dtype:text=auto|bfloat16 kv-cache-dtype-skip-layers:list"},
    {"events of the KV cache are not published", "", "kv-events-config:json={}"},
    {"the models here share no KV cache between layers", "kv-sharing-fast-prefill:switch=false"},
    {"the KV cache of a replica is not sent to others", "", "kv-transfer-config:json={}"},
    {"weights are safetensors; `cachalot synth` writes random ones", "",
     "load-format:text=auto|safetensors|hf|fastsafetensors|runai_streamer|instanttensor|modelexpress"},
    {"there is one log, on stderr, for the server and its HTTP; --log-level sets it",
     "log-config-file:text logging-config:json={} uvicorn-log-level:text=info"},
    {"an error is one line that says what to do", "log-error-stack:switch=false"},
    {"logprobs are those of the model's own logits (raw_logprobs)", "", "logprobs-mode:text=raw_logprobs"},
    {"prompts are not logged", "max-log-len:whole"},
    {"--max-num-seqs bounds the sequences that run", "max-num-active-seqs:whole"},
    {"--max-num-batched-tokens bounds a step", "max-num-scheduled-tokens:whole"},
    {"each rank loads its own part, all at once", "max-parallel-loading-workers:whole"},
    {"each model has one implementation", "model-impl:text=auto|vllm"},
    {"weights are mapped from safetensors and read by all threads",
     "model-loader-extra-config:json={} safetensors-load-strategy:text safetensors-prefetch-block-size:whole "
     "safetensors-prefetch-num-threads:whole"},
    {"every round's tokens are streamed", "multi-step-stream-outputs:text=true|True"},
    {"the ranks of a replica are on one node; replicas spread over nodes (`cachalot up`)", "", "nnodes/-n:whole=1"},
    {"the ranks of a replica are on one node; --data-parallel-rank says which replica this is", "",
     "node-rank/-r:whole=0"},
    {"ranks take NUMA domains and cores in the order of their numbers", "numa-bind:switch=true"},
    {"ranks keep to the cores that the process may use; taskset narrows them", "numa-bind-cpus:list"},
    {"ranks keep to the cores that the process may use; numactl narrows them", "numa-bind-nodes:list"},
    {"nothing is speculated yet; the answers are the same without",
     "per-request-spec-decode-metrics:text=none spec-method:text spec-model:text spec-tokens:whole "
     "speculative-config/-sc:json={}"},
    {"layers are not spread over ranks; --tensor-parallel-size and --data-parallel-size divide a model", "",
     "pipeline-parallel-size/-pp:whole=1"},
    {"a prompt is not divided among replicas; --tensor-parallel-size divides its work", "",
     "prefill-context-parallel-size/-pcp:whole=1"},
    {"blocks stay until others need their place", "prefix-cache-retention-interval:whole=0"},
    {"blocks are found by one keyed hash", "prefix-caching-hash-algo:text"},
    {"prefixes are found in units of --block-size", "prefix-match-unit:whole"},
    {"there is no profiler behind the API; `cachalot bench step --trace` is", "", "profiler-config:json={}"},
    {"weights are safetensors", "pt-load-map-location:text=cpu"},
    {"weights are used as the model's files store them; `cachalot quantize` makes int4 or fp8 of them", "",
     "quantization/-q:text=awq|awq_marlin|auto_awq|fp8|moe_wna16|moe_wna16_gcu|deepseek_fp8|compressed-tensors "
     "quantization-config:json={}"},
    {"a thought stands between <think> and </think>", "reasoning-config:json={}"},
    {"two threads render and tokenize", "renderer-num-workers:whole"},
    {"answers have the role assistant", "", "response-role:text=assistant"},
    {"answers carry no sampling masks", "", "return-sampling-mask:switch=false"},
    {"--model is a folder, which holds one revision", "revision:text tokenizer-revision:text"},
    {"paths begin with /v1; a proxy that adds a prefix must cut it off", "root-path:text=/"},
    {"the API reads and writes text", "", "skip-tokenizer-init:switch=false"},
    {"every token is sent as it comes", "stream-interval:whole=1"},
    {"nothing is swapped: a preempted sequence is computed again", "swap-space:real=0"},
    {"tokenizer.json is read, as HuggingFace's `tokenizers` do, or tiktoken.model, as Kimi's code does",
     "tokenizer-mode:text=auto|hf"},
    {"the API reads and writes text; prompts may be token ids", "", "tokens-only:switch=false"},
    {"there are no tools, and none are run", "", "tool-server:text"},
    {"no code is ever loaded from a model's folder", "trust-remote-code:switch=false"},
    {"sampling is the same on all machines (docs/numerics.md)", "use-fp64-gumbel:switch=false"},
    {"loading shows a bar on a terminal and lines elsewhere", "use-tqdm-on-load:switch=true"},
    {"there is one block manager", "use-v2-block-manager:switch=true"},
    {"a sequence that finds no free block preempts another", "watermark:real=0|0.0"},
    {"answers carry no watermark", "", "watermark-config:json={}"},
    {"weights are read from files, at the start", "", "weight-transfer-config:json={}"},
};

VllmFlag read_flag(std::string_view text) {
  constexpr std::pair<std::string_view, FlagValue> kKinds[] = {
      {"switch", FlagValue::kSwitch}, {"text", FlagValue::kText}, {"optional", FlagValue::kOptional},
      {"whole", FlagValue::kWhole},   {"real", FlagValue::kReal}, {"list", FlagValue::kList},
      {"json", FlagValue::kJson}};
  VllmFlag flag{};
  const size_t equals = text.find('='), colon = text.find(':'), slash = std::min(text.find('/'), colon);
  if (equals != text.npos) flag.neutral = text.substr(equals + 1);
  flag.name = text.substr(0, slash);
  if (slash < colon) flag.short_name = text.substr(slash + 1, colon - slash - 1);
  const std::string_view kind = text.substr(0, equals).substr(colon + 1);
  const auto* const found = std::ranges::find(kKinds, kind, &std::pair<std::string_view, FlagValue>::first);
  CHECK(found != std::end(kKinds), "{}", text);
  flag.value = found->second;
  return flag;
}

void add_flags(std::string_view texts, FlagFate fate, std::string_view sentence, std::string_view own_name,
               std::vector<VllmFlag>& flags) {
  while (!texts.empty()) {
    const size_t end = std::min(texts.find(' '), texts.size());
    VllmFlag& flag = flags.emplace_back(read_flag(texts.substr(0, end)));
    flag.fate = fate;
    flag.sentence = sentence;
    flag.own_name = own_name;
    texts.remove_prefix(std::min(end + 1, texts.size()));
  }
}

// "max_model_len" is "max-model-len".
bool equals(std::string_view name, std::string_view typed) {
  return std::ranges::equal(name, typed, {}, {}, [](char letter) { return letter == '_' ? '-' : letter; });
}

std::string table_row(const VllmFlag& flag) {
  const char* const fate = flag.fate == FlagFate::kWorks   ? "works"
                           : flag.fate == FlagFate::kTaken ? "taken"
                                                           : "refused";
  std::string name = fmt::format("`--{}`", flag.name);
  if (!flag.short_name.empty()) name += fmt::format(", `{}`", flag.short_name);
  std::string remark(flag.sentence);
  if (!flag.own_name.empty() && remark.empty()) remark = fmt::format("as `--{}`", flag.own_name);
  std::string neutral;
  for (const char letter : flag.neutral) neutral += letter == '|' ? "`, `" : std::string(1, letter);
  if (!neutral.empty()) neutral = fmt::format("`{}`", neutral);
  return fmt::format("| {} | {} | {} | {} |\n", name, fate, neutral, remark);
}

}  // namespace

std::span<const VllmFlag> vllm_flags() {
  static const std::vector<VllmFlag> sorted = [] {
    std::vector<VllmFlag> flags;
    for (const Working& working : kWorking)
      add_flags(working.flags, FlagFate::kWorks, working.remark, working.own_name, flags);
    for (const Reason& reason : kReasons) {
      add_flags(reason.taken, FlagFate::kTaken, reason.sentence, "", flags);
      add_flags(reason.refused, FlagFate::kRefused, reason.sentence, "", flags);
    }
    std::ranges::sort(flags, {}, &VllmFlag::name);
    return flags;
  }();
  return sorted;
}

const VllmFlag* find_vllm_flag(std::string_view name) {
  for (const VllmFlag& flag : vllm_flags())
    if (equals(flag.name, name)) return &flag;
  return nullptr;
}

const VllmFlag* find_short_vllm_flag(std::string_view short_name) {
  for (const VllmFlag& flag : vllm_flags())
    if (!short_name.empty() && flag.short_name == short_name) return &flag;
  return nullptr;
}

bool is_neutral(const VllmFlag& flag, std::string_view value) {
  for (std::string_view rest = flag.neutral; !rest.empty();) {
    const size_t bar = rest.find('|');
    if (rest.substr(0, bar) == value) return true;
    rest = bar == rest.npos ? std::string_view() : rest.substr(bar + 1);
  }
  return false;
}

std::string vllm_flags_document() {
  std::string rows;
  size_t num_works = 0, num_taken = 0;
  for (const VllmFlag& flag : vllm_flags()) {
    num_works += flag.fate == FlagFate::kWorks ? 1 : 0;
    num_taken += flag.fate == FlagFate::kTaken ? 1 : 0;
    rows += table_row(flag);
  }
  return fmt::format(
      "Of {} flags {} work, {} are taken with a line that says what stands in their place, and {} are refused unless "
      "they\nask for what happens anyway.\n\n"
      "| Flag | Here | Silent at | Why, or what stands in its place |\n|---|---|---|---|\n{}",
      vllm_flags().size(), num_works, num_taken, vllm_flags().size() - num_works - num_taken, rows);
}

}  // namespace cachalot
