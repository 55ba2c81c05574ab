#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace cachalot {
namespace {

using enum FlagValue;

constexpr VllmFlag works(std::string_view name, std::string_view short_name, FlagValue value,
                         std::string_view remark = "", std::string_view own_name = "") {
  return {name, short_name, value, FlagFate::kWorks, "", remark, own_name};
}
constexpr VllmFlag taken(std::string_view name, FlagValue value, std::string_view neutral, std::string_view sentence,
                         std::string_view short_name = "") {
  return {name, short_name, value, FlagFate::kTaken, neutral, sentence, ""};
}
constexpr VllmFlag refused(std::string_view name, FlagValue value, std::string_view neutral, std::string_view sentence,
                           std::string_view short_name = "") {
  return {name, short_name, value, FlagFate::kRefused, neutral, sentence, ""};
}

// Sentences that many flags share.
constexpr std::string_view kTextOnly = "the models here read text: there are no images, sound or video";
constexpr std::string_view kNoLora = "there are no LoRA adapters";
constexpr std::string_view kNoMamba = "the models here have no state-space layers";
constexpr std::string_view kNoGraphs = "nothing is compiled at run time, and there are no graphs to capture";
constexpr std::string_view kOneKernel = "there is one kernel for each instruction set; --isa chooses";
constexpr std::string_view kNoForeignCode = "no code is loaded from outside the program";
constexpr std::string_view kNoTls = "plain HTTP is spoken; put a proxy with TLS before it";
constexpr std::string_view kNoCors = "no CORS headers are sent, so browsers keep pages of other origins out";
constexpr std::string_view kNoTools = "there are no tools yet; a request that brings some is refused";
constexpr std::string_view kNoGrammars = "there is no structured output yet; a request that asks for it is refused";
constexpr std::string_view kNoSpeculation = "nothing is speculated yet; the answers are the same without";
constexpr std::string_view kInMemory = "weights and KV cache lie in the node's own memory already";
constexpr std::string_view kNoDownload = "nothing is downloaded: --model is a folder";
constexpr std::string_view kOneRevision = "--model is a folder, which holds one revision";
constexpr std::string_view kOwnMetrics = "/metrics has what is measured here (docs/operations.md)";
constexpr std::string_view kNoTraces = "no traces are sent; /metrics has times of requests and steps";
constexpr std::string_view kOneLog = "there is one log, on stderr, for the server and its HTTP; --log-level sets it";
constexpr std::string_view kNoAccessLog = "there is no access log";
constexpr std::string_view kRanksMeet = "all ranks meet at --data-parallel-address and --data-parallel-rpc-port";
constexpr std::string_view kOneReplica = "one process is one replica; `cachalot up` starts several with a router";
constexpr std::string_view kNoOtherApi = "OpenAI's API is the only one";
constexpr std::string_view kExpertsStay = "experts stay on the rank that loads them";
constexpr std::string_view kOneStream = "a rank computes one batch at a time";
constexpr std::string_view kNoSleep = "a server does not sleep: stop it, and start it again";
constexpr std::string_view kKvStays = "the KV cache of a replica is not sent to others";
constexpr std::string_view kOnePlan = "the scheduler has one plan (docs/architecture.md)";
constexpr std::string_view kNoPooling = "text is generated; nothing is pooled, embedded or classified";

// In the order of names.
constexpr std::array kFlags = {
    taken("additional-config", kJson, "{}", "it is for plugins of vLLM's platforms"),
    taken("aggregate-engine-logging", kSwitch, "false", "a server's log is of one replica"),
    taken("all2all-backend", kText, "", "--transports chooses: shared memory inside a node, UCX between nodes"),
    taken("allow-credentials", kSwitch, "false", kNoCors),
    taken("allow-deprecated-quantization", kSwitch, "false", "the model's files say how each weight is stored"),
    taken("allowed-headers", kJson, "[\"*\"]", kNoCors),
    taken("allowed-local-media-path", kText, "", kTextOnly),
    taken("allowed-media-domains", kList, "", kTextOnly),
    taken("allowed-methods", kJson, "[\"*\"]", kNoCors),
    refused("allowed-origins", kJson, "[]", "no CORS headers are sent; a proxy before it can add them"),
    taken("anthropic-disabled-thinking-effort", kText, "auto", kNoOtherApi),
    works("api-key", "", kList, "or CACHALOT_API_KEY, or VLLM_API_KEY"),
    taken("api-server-count", kWhole, "1", "one process answers, with --io-threads threads", "-asc"),
    taken("async-scheduling", kSwitch, "false", "the next step is planned when the last one's tokens are known"),
    taken("attention-backend", kText, "", kOneKernel),
    taken("attention-config", kJson, "{}", kOneKernel, "-ac"),
    refused("aux-output-config", kJson, "{}", "answers carry no routed experts or hidden states"),
    works("block-size", "", kWhole),
    works("chat-template", "", kText, "a file, or the template itself"),
    refused("chat-template-content-format", kText, "auto|string",
            "templates are given a message's text as one string (string)"),
    taken("code-revision", kText, "", kNoForeignCode),
    taken("cohere-format", kText, "", kNoOtherApi),
    taken("cohere-is-reasoning-model", kSwitch, "true", kNoOtherApi),
    taken("collect-detailed-traces", kList, "", kNoTraces),
    taken("compilation-config", kJson, "{}", kNoGraphs, "-cc"),
    works("config", "", kText, "a YAML file of flags; those of the command line win"),
    refused("config-format", kText, "auto|hf", "config.json is HuggingFace's (hf)"),
    refused("convert", kText, "auto|none", kNoPooling),
    taken("cp-kv-cache-interleave-size", kWhole, "1", "a sequence's KV cache is not divided among ranks"),
    taken("cpu-distributed-timeout-seconds", kWhole, "", "--start-timeout and --failure-timeout-ms hold"),
    taken("cpu-offload-gb", kReal, "0", kInMemory),
    taken("cpu-offload-params", kList, "", kInMemory),
    taken("cudagraph-capture-sizes", kList, "", kNoGraphs),
    taken("cudagraph-metrics", kSwitch, "false", kNoGraphs),
    taken("custom-histogram-buckets", kJson, "{}", kOwnMetrics),
    works("data-parallel-address", "-dpa", kText),
    refused("data-parallel-backend", kText, "mp", "replicas are processes that meet at --data-parallel-address (mp)",
            "-dpb"),
    taken("data-parallel-external-lb", kSwitch, "false",
          "each replica has an address of its own anyway; `cachalot router` or another balancer stands before them",
          "-dpe"),
    refused("data-parallel-hybrid-lb", kSwitch, "false", kOneReplica, "-dph"),
    refused("data-parallel-multi-port-external-lb", kSwitch, "false", kOneReplica, "-dpm"),
    works("data-parallel-rank", "-dpn", kWhole),
    works("data-parallel-rpc-port", "-dpp", kWhole),
    works("data-parallel-size", "-dp", kWhole,
          "this process is one of so many replicas; `cachalot up` starts them all"),
    refused("data-parallel-size-local", kWhole, "1", kOneReplica, "-dpl"),
    works("data-parallel-start-rank", "-dpr", kWhole, "the one replica of this process", "data-parallel-rank"),
    taken("data-parallel-supervisor-port", kWhole, "", kOneReplica),
    taken("dbo-decode-token-threshold", kWhole, "", kOneStream),
    taken("dbo-prefill-token-threshold", kWhole, "", kOneStream),
    taken("dcp-comm-backend", kText, "", "a sequence's KV cache is not divided among ranks"),
    taken("dcp-kv-cache-interleave-size", kWhole, "1", "a sequence's KV cache is not divided among ranks"),
    taken("dcp-q-replicate", kSwitch, "false", "a sequence's KV cache is not divided among ranks"),
    refused("decode-context-parallel-size", kWhole, "1",
            "a sequence's KV cache is not divided among ranks; --data-parallel-size holds more sequences", "-dcp"),
    works("default-chat-template-kwargs", "", kJson),
    taken("default-mm-loras", kJson, "{}", kNoLora),
    taken("device", kText, "cpu|auto", "the program has one device, the CPU"),
    taken("device-ids", kText, "", "the program has one device, the CPU; ranks share out its cores"),
    works("device-memory-utilization", "", kReal, "", "gpu-memory-utilization"),
    refused("diffusion-config", kJson, "{}", "the models here write from left to right", "-dc"),
    taken("disable-access-log-for-endpoints", kText, "", kNoAccessLog),
    taken("disable-async-output-proc", kSwitch, "false", kOnePlan),
    taken("disable-cascade-attn", kSwitch, "true", kOneKernel),
    taken("disable-chunked-mm-input", kSwitch, "false", kTextOnly),
    taken("disable-custom-all-reduce", kSwitch, "false", "there is one all-reduce"),
    taken("disable-fastapi-docs", kSwitch, "true", "there are no /docs pages"),
    taken("disable-frontend-multiprocessing", kSwitch, "false", "the HTTP side is in the process of rank 0"),
    taken("disable-hybrid-kv-cache-manager", kSwitch, "false", "there is one kind of KV cache"),
    works("disable-log-requests", "", kSwitch, "as --no-enable-log-requests", "no-enable-log-requests"),
    works("disable-log-stats", "", kSwitch),
    taken("disable-nccl-for-dp-synchronization", kSwitch, "true", kRanksMeet),
    taken("disable-sliding-window", kSwitch, "true", "the models here have no sliding window"),
    taken("disable-uvicorn-access-log", kSwitch, "true", kNoAccessLog),
    taken("distributed-executor-backend", kText, "mp|uni", "ranks are always processes"),
    taken("distributed-timeout-seconds", kWhole, "", "--start-timeout and --failure-timeout-ms hold"),
    taken("download-dir", kText, "", kNoDownload),
    taken("dp-supervisor-probe-failure-threshold", kWhole, "", kOneReplica),
    taken("dp-supervisor-probe-interval-s", kReal, "", kOneReplica),
    taken("dp-supervisor-probe-timeout-s", kReal, "", kOneReplica),
    taken("dp-sync-interval", kWhole, "", "replicas that share experts agree on each step"),
    works("dtype", "", kText, "half and float16 are computed as bfloat16, with a line"),
    taken("ec-manager-config", kJson, "{}", kTextOnly),
    refused("ec-transfer-config", kJson, "{}", kTextOnly),
    taken("elastic-ep-max-dp-size", kWhole, "", "the number of replicas is that of the start"),
    taken("enable-auto-tool-choice", kSwitch, "false", kNoTools),
    taken("enable-batch-sharded-sampling", kSwitch, "false", "rank 0 of a replica samples"),
    taken("enable-chunked-prefill", kSwitch, "true", "long prompts are always cut into pieces"),
    taken("enable-cumem-allocator", kSwitch, "false", kInMemory),
    taken("enable-dbo", kSwitch, "false", kOneStream),
    refused("enable-elastic-ep", kSwitch, "false", "the number of replicas is that of the start"),
    taken("enable-ep-weight-filter", kSwitch, "true", "a rank reads only the weights that it holds"),
    taken("enable-eplb", kSwitch, "false", kExpertsStay),
    works("enable-expert-parallel", "-ep", kSwitch),
    taken("enable-fault-tolerance", kSwitch, "false",
          "a lost rank ends its group, and `cachalot up` starts it anew; --wait-on-failure stays"),
    taken("enable-flash-late-interaction", kSwitch, "true|false", kNoPooling),
    taken("enable-flashinfer-autotune", kSwitch, "false", kOneKernel),
    works("enable-force-include-usage", "", kSwitch),
    taken("enable-hc-sp", kSwitch, "false", "sequence parallelism is always on"),
    taken("enable-layerwise-nvtx-tracing", kSwitch, "false", kNoTraces),
    taken("enable-log-deltas", kSwitch, "true|false", "answers are not logged"),
    taken("enable-log-outputs", kSwitch, "false", "answers are not logged, whatever the level"),
    works("enable-log-requests", "", kSwitch),
    taken("enable-logging-iteration-details", kSwitch, "false", "`cachalot bench step --trace` shows steps"),
    refused("enable-lora", kSwitch, "false", kNoLora),
    taken("enable-mamba-cache-stochastic-rounding", kSwitch, "false", kNoMamba),
    taken("enable-mamba-shared-prefix-checkpoint", kSwitch, "false", kNoMamba),
    taken("enable-mfu-metrics", kSwitch, "false", "`cachalot bench model` compares speed with the machine's bounds"),
    taken("enable-mixed-moe-lora-format", kSwitch, "false", kNoLora),
    refused("enable-mm-embeds", kSwitch, "false", kTextOnly),
    taken("enable-mm-processor-stats", kSwitch, "false", kTextOnly),
    taken("enable-moe-shared-loras", kSwitch, "false", kNoLora),
    taken("enable-nccl-comm-suspend", kSwitch, "false", kNoSleep),
    taken("enable-offline-docs", kSwitch, "false", "there are no /docs pages; docs/api.md has the API"),
    refused("enable-per-request-metrics", kSwitch, "false", "answers carry no metrics; /metrics has histograms"),
    works("enable-prefix-caching", "", kSwitch),
    refused("enable-prompt-embeds", kSwitch, "false", "prompts are text or token ids"),
    taken("enable-prompt-tokens-details", kSwitch, "true", "usage always has prompt_tokens_details"),
    works("enable-reasoning", "", kSwitch, "with and without --reasoning-parser"),
    taken("enable-request-id-headers", kSwitch, "true", "answers always have X-Request-Id"),
    refused("enable-return-routed-experts", kSwitch, "false", "answers carry no routed experts"),
    refused("enable-scale-out", kSwitch, "false",
            "requests are not split over servers; `cachalot router` shares them out"),
    taken("enable-server-load-tracking", kSwitch, "true", "/load is always there"),
    taken("enable-shm-tensor-arena", kSwitch, "true", "ranks of a node always share memory"),
    refused("enable-sleep-mode", kSwitch, "false", kNoSleep),
    refused("enable-ssl-refresh", kSwitch, "false", kNoTls),
    refused("enable-tokenizer-info-endpoint", kSwitch, "false", "there is no /tokenizer_info; /tokenize is"),
    taken("enable-tower-connector-lora", kSwitch, "false", kNoLora),
    taken("enable-trace-replay", kSwitch, "false", kNoGraphs),
    taken("enforce-eager", kSwitch, "true", kNoGraphs),
    taken("engram-config", kJson, "{}", "the models here have no such layers"),
    taken("eplb-config", kJson, "{}", kExpertsStay),
    taken("exclude-tools-when-tool-choice-none", kSwitch, "false", kNoTools),
    taken("expert-placement-strategy", kText, "linear",
          "experts stand on ranks in the order of their numbers (linear)"),
    taken("fail-on-environ-validation", kSwitch, "false",
          "variables of vLLM that are not read are not looked at (docs/vllm-flags.md)"),
    taken("fault-tolerance-config", kJson, "{}", "--failure-timeout-ms and --wait-on-failure hold"),
    taken("fingerprint-mode", kText, "full|hash", "system_fingerprint names the program and the model"),
    refused("fingerprint-value", kText, "", "system_fingerprint names the program and the model"),
    taken("fully-sharded-loras", kSwitch, "false", kNoLora),
    taken("gdn-prefill-backend", kText, "", kNoMamba),
    works("generation-config", "", kText, "auto, vllm, or a folder"),
    works("gpu-memory-utilization", "", kReal, "of the machine's memory"),
    refused("grpc", kSwitch, "false", "HTTP is the only protocol"),
    refused("grpc-port", kWhole, "", "HTTP is the only protocol"),
    taken("guided-decoding-backend", kText, "", kNoGrammars),
    taken("h11-max-header-count", kWhole, "", "a request's head has a bound in bytes, 32 KiB"),
    taken("h11-max-incomplete-event-size", kWhole, "", "a request's head may have 32 KiB, its body 32 MiB"),
    taken("headless", kSwitch, "false", "each replica answers; nobody need ask this one"),
    refused("hf-config-path", kText, "", "config.json lies in the model's folder"),
    refused("hf-overrides", kJson, "{}", "what config.json says holds; change it in a copy of the folder"),
    taken("hf-token", kOptional, "", kNoDownload),
    works("host", "", kText),
    taken("ignore-patterns", kList, "", kNoDownload),
    taken("interleave-mm-strings", kSwitch, "false", kTextOnly),
    refused("io-processor-plugin", kText, "", kNoForeignCode),
    taken("ir-op-priority", kJson, "{}", kOneKernel),
    taken("jit-monitor-mode", kText, "warn", kNoGraphs),
    taken("jit-monitor-verbose", kSwitch, "false", kNoGraphs),
    taken("kda-decode-backend", kText, "", kNoMamba),
    taken("kda-prefill-backend", kText, "", kNoMamba),
    taken("kernel-config", kJson, "{}", kOneKernel),
    taken("kv-cache-dtype", kText, "auto|bfloat16", "the KV cache has the compute type; --dtype sets both"),
    taken("kv-cache-dtype-skip-layers", kList, "", "the KV cache has the compute type; --dtype sets both"),
    refused("kv-cache-memory-bytes", kWhole, "",
            "--gpu-memory-utilization sets the share of memory, --num-gpu-blocks-override the blocks"),
    taken("kv-cache-metrics", kSwitch, "false", kOwnMetrics),
    taken("kv-cache-metrics-sample", kReal, "", kOwnMetrics),
    refused("kv-events-config", kJson, "{}", "events of the KV cache are not published"),
    taken("kv-offloading-backend", kText, "", kInMemory),
    taken("kv-offloading-size", kReal, "0", kInMemory),
    taken("kv-sharing-fast-prefill", kSwitch, "false", "the models here share no KV cache between layers"),
    refused("kv-transfer-config", kJson, "{}", kKvStays),
    taken("language-model-only", kSwitch, "true", kTextOnly),
    taken("limit-mm-per-prompt", kJson, "{}", kTextOnly),
    taken("linear-backend", kText, "auto", kOneKernel),
    refused("load-format", kText, "auto|safetensors|hf|fastsafetensors|runai_streamer|instanttensor|modelexpress",
            "weights are safetensors; `cachalot synth` writes random ones"),
    taken("log-config-file", kText, "", kOneLog),
    taken("log-error-stack", kSwitch, "false", "an error is one line that says what to do"),
    works("log-level", "", kText),
    taken("logging-config", kJson, "{}", kOneLog),
    refused("logits-processors", kList, "", kNoForeignCode),
    refused("logprobs-mode", kText, "raw_logprobs", "logprobs are those of the model's own logits (raw_logprobs)"),
    taken("long-prefill-token-threshold", kWhole, "0", kOnePlan),
    taken("long-prefill-token-threshold-adaptive", kSwitch, "false", kOnePlan),
    taken("lora-dtype", kText, "auto", kNoLora),
    refused("lora-modules", kList, "", kNoLora),
    taken("lora-target-modules", kList, "", kNoLora),
    taken("mamba-backend", kText, "", kNoMamba),
    taken("mamba-block-size", kWhole, "", kNoMamba),
    taken("mamba-cache-dtype", kText, "auto", kNoMamba),
    taken("mamba-cache-mode", kText, "none", kNoMamba),
    taken("mamba-cache-philox-rounds", kWhole, "", kNoMamba),
    taken("mamba-ssm-cache-dtype", kText, "auto", kNoMamba),
    taken("mamba-ssu-algorithm", kText, "", kNoMamba),
    taken("master-addr", kText, "", kRanksMeet),
    taken("master-port", kWhole, "", kRanksMeet),
    taken("max-cpu-loras", kWhole, "", kNoLora),
    taken("max-cudagraph-capture-size", kWhole, "", kNoGraphs),
    taken("max-log-len", kWhole, "", "prompts are not logged"),
    works("max-logprobs", "", kWhole),
    taken("max-lora-cls-labels", kWhole, "", kNoLora),
    taken("max-lora-rank", kWhole, "", kNoLora),
    taken("max-loras", kWhole, "", kNoLora),
    works("max-model-len", "", kWhole, "auto and -1: the model's, cut to what the KV cache holds"),
    taken("max-num-active-seqs", kWhole, "", "--max-num-seqs bounds the sequences that run"),
    works("max-num-batched-tokens", "", kWhole),
    works("max-num-queued-reqs", "", kWhole, "of requests that wait; 0: no bound"),
    works("max-num-queued-tokens", "", kWhole, "of the prompts of requests that wait"),
    taken("max-num-scheduled-tokens", kWhole, "", "--max-num-batched-tokens bounds a step"),
    works("max-num-seqs", "", kWhole),
    taken("max-parallel-loading-workers", kWhole, "", "each rank loads its own part, all at once"),
    taken("max-seq-len-to-capture", kWhole, "", kNoGraphs),
    taken("media-io-kwargs", kJson, "{}", kTextOnly),
    refused("middleware", kText, "", kNoForeignCode),
    taken("mm-device-do-normalize", kSwitch, "true|false", kTextOnly),
    taken("mm-encoder-attn-backend", kText, "", kTextOnly),
    taken("mm-encoder-attn-dtype", kText, "", kTextOnly),
    taken("mm-encoder-fp8-scale-path", kText, "", kTextOnly),
    taken("mm-encoder-fp8-scale-save-margin", kReal, "", kTextOnly),
    taken("mm-encoder-fp8-scale-save-path", kText, "", kTextOnly),
    refused("mm-encoder-only", kSwitch, "false", kTextOnly),
    taken("mm-encoder-tp-mode", kText, "", kTextOnly),
    taken("mm-hasher-algorithm", kText, "", kTextOnly),
    taken("mm-ipc-gpu-memory-gb", kReal, "", kTextOnly),
    taken("mm-processor-cache-gb", kReal, "0", kTextOnly),
    taken("mm-processor-cache-type", kText, "", kTextOnly),
    taken("mm-processor-device", kText, "", kTextOnly),
    taken("mm-processor-kwargs", kJson, "{}", kTextOnly),
    taken("mm-shm-cache-max-object-size-mb", kWhole, "", kTextOnly),
    taken("mm-tensor-ipc", kText, "", kTextOnly),
    works("model", "", kText, "a folder; also the word behind `serve`"),
    refused("model-class-overrides", kJson, "{}", kNoForeignCode),
    taken("model-impl", kText, "auto|vllm", "each model has one implementation"),
    taken("model-loader-extra-config", kJson, "{}", "weights are mapped from safetensors and read by all threads"),
    taken("moe-backend", kText, "auto", kOneKernel),
    taken("multi-step-stream-outputs", kText, "true|True", "every round's tokens are streamed"),
    refused("nnodes", kWhole, "1", "the ranks of a replica are on one node; replicas spread over nodes (`cachalot up`)",
            "-n"),
    refused("node-rank", kWhole, "0",
            "the ranks of a replica are on one node; --data-parallel-rank says which replica this is", "-r"),
    works("num-gpu-blocks-override", "", kWhole),
    works("num-scheduler-steps", "", kWhole),
    taken("numa-bind", kSwitch, "true", "ranks take NUMA domains and cores in the order of their numbers"),
    taken("numa-bind-cpus", kList, "", "ranks keep to the cores that the process may use; taskset narrows them"),
    taken("numa-bind-nodes", kList, "", "ranks keep to the cores that the process may use; numactl narrows them"),
    taken("offload-backend", kText, "auto", kInMemory),
    taken("offload-group-size", kWhole, "0", kInMemory),
    taken("offload-num-in-group", kWhole, "", kInMemory),
    taken("offload-params", kList, "", kInMemory),
    taken("offload-prefetch-step", kWhole, "", kInMemory),
    taken("optimization-level", kText, "", kNoGraphs, "-O"),
    taken("otlp-traces-endpoint", kText, "", kNoTraces),
    works("override-generation-config", "", kJson),
    taken("per-request-spec-decode-metrics", kText, "none", kNoSpeculation),
    taken("performance-mode", kText, "balanced", kOnePlan),
    refused("pipeline-parallel-size", kWhole, "1",
            "layers are not spread over ranks; --tensor-parallel-size and --data-parallel-size divide a model", "-pp"),
    refused("pooler-config", kJson, "{}", kNoPooling),
    works("port", "", kWhole),
    refused("prefill-context-parallel-size", kWhole, "1",
            "a prompt is not divided among replicas; --tensor-parallel-size divides its work", "-pcp"),
    taken("prefill-schedule-interval", kWhole, "1", kOnePlan),
    taken("prefix-cache-retention-interval", kWhole, "0", "blocks stay until others need their place"),
    taken("prefix-caching-hash-algo", kText, "", "blocks are found by one keyed hash"),
    taken("prefix-match-unit", kWhole, "", "prefixes are found in units of --block-size"),
    refused("profiler-config", kJson, "{}", "there is no profiler behind the API; `cachalot bench step --trace` is"),
    taken("pt-load-map-location", kText, "cpu", "weights are safetensors"),
    refused("quantization", kText,
            "awq|awq_marlin|auto_awq|fp8|moe_wna16|moe_wna16_gcu|deepseek_fp8|compressed-tensors",
            "weights are used as the model's files store them; `cachalot quantize` makes int4 or fp8 of them", "-q"),
    refused("quantization-config", kJson, "{}",
            "weights are used as the model's files store them; `cachalot quantize` makes int4 or fp8 of them"),
    taken("ray-workers-use-nsight", kSwitch, "false", "ranks are always processes"),
    taken("reasoning-config", kJson, "{}", "a thought stands between <think> and </think>"),
    works("reasoning-parser", "", kText, "those that divide at </think>: deepseek_r1, qwen3, ..."),
    refused("reasoning-parser-plugin", kText, "", kNoForeignCode),
    taken("renderer-num-workers", kWhole, "", "two threads render and tokenize"),
    taken("replayssm-buffer-len", kWhole, "", kNoMamba),
    refused("response-role", kText, "assistant", "answers have the role assistant"),
    refused("return-sampling-mask", kSwitch, "false", "answers carry no sampling masks"),
    works("return-tokens-as-token-ids", "", kSwitch, "a request may ask otherwise"),
    taken("revision", kText, "", kOneRevision),
    taken("root-path", kText, "/", "paths begin with /v1; a proxy that adds a prefix must cut it off"),
    refused("rope-scaling", kJson, "{}", "what config.json says holds; change it in a copy of the folder"),
    refused("rope-theta", kReal, "", "what config.json says holds; change it in a copy of the folder"),
    refused("runner", kText, "auto|generate", kNoPooling),
    taken("safetensors-load-strategy", kText, "", "weights are mapped from safetensors and read by all threads"),
    taken("safetensors-prefetch-block-size", kWhole, "", "weights are mapped from safetensors and read by all threads"),
    taken("safetensors-prefetch-num-threads", kWhole, "",
          "weights are mapped from safetensors and read by all threads"),
    refused("scheduler-cls", kText, "", kNoForeignCode),
    taken("scheduler-reserve-full-isl", kSwitch, "true|false", kOnePlan),
    works("scheduling-policy", "", kText),
    works("seed", "", kWhole, "of requests that bring none; absent here: a random one each"),
    works("served-model-name", "", kList),
    taken("show-hidden-metrics-for-version", kText, "", kOwnMetrics),
    works("shutdown-timeout", "", kWhole, "", "drain-seconds"),
    taken("skip-mm-profiling", kSwitch, "true", kTextOnly),
    refused("skip-tokenizer-init", kSwitch, "false", "the API reads and writes text"),
    taken("sleep-mode-offload-cudagraph", kSwitch, "false", kNoSleep),
    taken("sleep-preserve-parameter-names", kList, "", kNoSleep),
    taken("sparse-indexer-topk-backend", kText, "auto", kOneKernel),
    taken("spec-method", kText, "", kNoSpeculation),
    taken("spec-model", kText, "", kNoSpeculation),
    taken("spec-tokens", kWhole, "", kNoSpeculation),
    taken("specialize-active-lora", kSwitch, "false", kNoLora),
    taken("speculative-config", kJson, "{}", kNoSpeculation, "-sc"),
    taken("sse-keep-alive-interval", kWhole, "", "a comment is sent wherever a stream is silent for long"),
    refused("ssl-ca-certs", kText, "", kNoTls),
    refused("ssl-cert-reqs", kWhole, "0", kNoTls),
    refused("ssl-certfile", kText, "", kNoTls),
    refused("ssl-ciphers", kText, "", kNoTls),
    refused("ssl-keyfile", kText, "", kNoTls),
    taken("stream-interval", kWhole, "1", "every token is sent as it comes"),
    taken("structured-outputs-config", kJson, "{}", kNoGrammars),
    taken("swa-bounded-replay", kSwitch, "true|false", "the models here have no sliding window"),
    taken("swap-space", kReal, "0", "nothing is swapped: a preempted sequence is computed again"),
    refused("task", kText, "auto|generate", kNoPooling),
    works("tensor-parallel-size", "-tp", kWhole),
    works("tokenizer", "", kText, "a folder"),
    taken("tokenizer-mode", kText, "auto|hf", "tokenizer.json is read, as HuggingFace's `tokenizers` do"),
    taken("tokenizer-revision", kText, "", kOneRevision),
    refused("tokens-only", kSwitch, "false", "the API reads and writes text; prompts may be token ids"),
    taken("tool-call-parser", kText, "", kNoTools),
    refused("tool-parser-plugin", kText, "", kNoForeignCode),
    refused("tool-server", kText, "", "there are no tools, and none are run"),
    taken("tool-strict-level", kText, "auto", kNoTools),
    taken("trust-remote-code", kSwitch, "false", "no code is ever loaded from a model's folder"),
    refused("trust-request-chat-template", kSwitch, "false", "requests bring no templates of their own"),
    taken("trust-request-mm-kwargs", kSwitch, "false", kTextOnly),
    taken("ubatch-size", kWhole, "0", kOneStream),
    refused("uds", kText, "", "TCP is the only way in; --host 127.0.0.1 keeps it to this machine"),
    taken("use-fp64-gumbel", kSwitch, "false", "sampling is the same on all machines (docs/numerics.md)"),
    taken("use-replayssm", kSwitch, "false", kNoMamba),
    taken("use-tqdm-on-load", kSwitch, "true", "loading shows a bar on a terminal and lines elsewhere"),
    taken("use-v2-block-manager", kSwitch, "true", "there is one block manager"),
    taken("uvicorn-log-level", kText, "info", kOneLog),
    taken("video-pruning-method", kText, "", kTextOnly),
    taken("video-pruning-rate", kReal, "0", kTextOnly),
    taken("watermark", kReal, "0|0.0", "a sequence that finds no free block preempts another"),
    refused("watermark-config", kJson, "{}", "answers carry no watermark"),
    refused("weight-transfer-config", kJson, "{}", "weights are read from files, at the start"),
    refused("worker-cls", kText, "auto", kNoForeignCode),
    refused("worker-extension-cls", kText, "", kNoForeignCode),
    taken("worker-use-ray", kSwitch, "false", "ranks are always processes"),
};

// "max_model_len" is "max-model-len".
bool equals(std::string_view name, std::string_view typed) {
  return std::ranges::equal(name, typed, {}, {}, [](char letter) { return letter == '_' ? '-' : letter; });
}

std::string_view fate_text(FlagFate fate) {
  switch (fate) {
    case FlagFate::kWorks:
      return "works";
    case FlagFate::kTaken:
      return "taken";
    case FlagFate::kRefused:
      return "refused";
  }
  return "";
}

std::string table_row(const VllmFlag& flag) {
  std::string name = fmt::format("`--{}`", flag.name);
  if (!flag.short_name.empty()) name += fmt::format(", `{}`", flag.short_name);
  std::string remark(flag.sentence);
  if (!flag.own_name.empty() && remark.empty()) remark = fmt::format("as `--{}`", flag.own_name);
  std::string neutral;
  for (const char letter : flag.neutral) neutral += letter == '|' ? "`, `" : std::string(1, letter);
  if (!neutral.empty()) neutral = fmt::format("`{}`", neutral);
  return fmt::format("| {} | {} | {} | {} |\n", name, fate_text(flag.fate), neutral, remark);
}

}  // namespace

std::span<const VllmFlag> vllm_flags() {
  return kFlags;
}

const VllmFlag* find_vllm_flag(std::string_view name) {
  const auto found = std::ranges::find_if(kFlags, [&](const VllmFlag& flag) { return equals(flag.name, name); });
  return found == kFlags.end() ? nullptr : &*found;
}

const VllmFlag* find_short_vllm_flag(std::string_view short_name) {
  const auto found = std::ranges::find(kFlags, short_name, &VllmFlag::short_name);
  return short_name.empty() || found == kFlags.end() ? nullptr : &*found;
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
  for (const VllmFlag& flag : kFlags) {
    num_works += flag.fate == FlagFate::kWorks ? 1 : 0;
    num_taken += flag.fate == FlagFate::kTaken ? 1 : 0;
    rows += table_row(flag);
  }
  return fmt::format(
      "Of {} flags {} work, {} are taken with a line that says what stands in their place, and {} are refused unless "
      "they\nask for what happens anyway.\n\n"
      "| Flag | Here | Silent at | Why, or what stands in its place |\n|---|---|---|---|\n{}",
      kFlags.size(), num_works, num_taken, kFlags.size() - num_works - num_taken, rows);
}

}  // namespace cachalot
