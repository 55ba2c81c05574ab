#include "config/quantization_keys.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "base/text.h"
#include "config/module_patterns.h"

namespace cachalot {
namespace {

namespace json = boost::json;

constexpr int kFp8Block = 128;

bool is_block(const json::value* block) {
  const json::array* sizes = block ? block->if_array() : nullptr;
  const auto is_right = [](const json::value& size) {
    return size.is_number() && size.to_number<double>() == kFp8Block;
  };
  return sizes && sizes->size() == 2 && is_right(sizes->at(0)) && is_right(sizes->at(1));
}

void refuse_block(ModelKeys& keys, std::string_view key) {
  const json::value* block = keys.find(key);
  keys.fault(key, block ? "is " + shown(*block) + ", which is not supported" : "is missing", "[128, 128]",
             ErrorCode::kUnsupported);
}

void read_awq(ModelKeys& keys, QuantizationConfig& quantization) {
  quantization.format = WeightFormat::kAwq;
  int bits = 4;
  keys.optional("w_bit", bits);
  keys.optional("bits", bits);
  if (bits != 4) keys.refuse("bits", fmt::to_string(bits), "4");
  keys.require_word("version", "gemm", "gemm");
  const std::string_view group_key = keys.find("q_group_size") ? "q_group_size" : "group_size";
  keys.require(group_key, quantization.group_size);
  if (quantization.group_size % 32 != 0)
    keys.refuse(group_key, fmt::to_string(quantization.group_size), "a multiple of 32");
  keys.optional("zero_point", quantization.zero_point);
}

void read_fp8(ModelKeys& keys, QuantizationConfig& quantization) {
  quantization.format = WeightFormat::kFp8Block;
  keys.require_word("fmt", "e4m3", "e4m3");
  keys.require_word("activation_scheme", "dynamic", "dynamic");
  if (!is_block(keys.find("weight_block_size"))) refuse_block(keys, "weight_block_size");
}

// ---- compressed-tensors ----

// Rows of numbers of one type, as `weights` describes them.
struct Numbers {
  std::string type = "int", strategy, actorder;
  int num_bits = 8, group_size = 0;
  bool symmetric = true, dynamic = false;
};

// The formats of compressed-tensors that are read, and what `weights` must say for each.
struct Format {
  std::string_view name;
  WeightFormat format;
  std::string_view type, bits, strategies;  // between spaces
  int group_size;                           // 0: any
};
constexpr Format kFormats[] = {
    {"pack-quantized", WeightFormat::kPackedInt, "int", "4 8", "group channel", 0},
    {"float-quantized", WeightFormat::kFp8Block, "float", "8", "block channel tensor", 0},
    {"mxfp4-pack-quantized", WeightFormat::kMxfp4, "float", "4", "group", 32},
};

void check_word(ModelKeys& keys, std::string_view key, const std::string& word, std::string_view supported) {
  if (has_word(supported, word)) return;
  std::string names(supported);
  for (size_t at = 0; (at = names.find(' ', at)) != names.npos; at += 4) names.replace(at, 1, " or ");
  keys.refuse(key, in_double_quotes(word), names);
}

// As compressed-tensors reads it: a bool is the older way to say it.
void read_actorder(ModelKeys& keys, std::string& actorder) {
  const json::value* said = keys.find("actorder");
  if (said && said->is_bool())
    actorder = said->get_bool() ? "group" : "";
  else
    keys.optional("actorder", actorder);
}

void read_weights(ModelKeys& keys, const Format& format, QuantizationScheme& scheme) {
  Numbers numbers;
  keys.optional("type", numbers.type);
  keys.optional("strategy", numbers.strategy);
  read_actorder(keys, numbers.actorder);
  keys.optional("num_bits", numbers.num_bits);
  keys.optional("group_size", numbers.group_size);
  keys.optional("symmetric", numbers.symmetric);
  keys.optional("dynamic", numbers.dynamic);
  if (numbers.strategy.empty())  // the group size implies it
    numbers.strategy = numbers.group_size == 0 ? "tensor" : numbers.group_size < 0 ? "channel" : "group";
  check_word(keys, "type", numbers.type, format.type);
  check_word(keys, "num_bits", fmt::to_string(numbers.num_bits), format.bits);
  check_word(keys, "strategy", numbers.strategy, format.strategies);
  if (!numbers.actorder.empty()) check_word(keys, "actorder", numbers.actorder, "static weight");
  if (numbers.dynamic) keys.refuse("dynamic", "true", "false");
  if (numbers.strategy == "group" && numbers.group_size == 0) keys.miss("group_size");
  if (numbers.strategy == "group" && numbers.group_size % 32 != 0)
    keys.refuse("group_size", fmt::to_string(numbers.group_size), "a multiple of 32");
  if (format.group_size > 0 && numbers.group_size != format.group_size)
    keys.refuse("group_size", fmt::to_string(numbers.group_size), fmt::to_string(format.group_size));
  if (numbers.strategy == "block" && !is_block(keys.find("block_structure"))) refuse_block(keys, "block_structure");
  if (format.format != WeightFormat::kPackedInt && !numbers.symmetric) keys.refuse("symmetric", "false", "true");
  scheme = {.format = format.format,
            .bits = numbers.num_bits,
            .group_size = numbers.strategy == "group" ? numbers.group_size : 0,
            .zero_point = !numbers.symmetric};
}

// Rows may be rounded as they come, which is the engine's choice; not by scales that were found before.
void read_activations(ModelKeys& keys) {
  json::value dynamic = false;
  if (const json::value* said = keys.find("dynamic")) dynamic = *said;
  if (dynamic != json::value(true))
    keys.fault("dynamic", fmt::format("is {}, which is not supported: it asks for static activations", shown(dynamic)),
               "true", ErrorCode::kUnsupported);
}

Status check_patterns(ModelKeys& keys, std::string_view key, const std::vector<std::string>& patterns) {
  const Result<ModulePatterns> compiled = ModulePatterns::compile(patterns);
  if (!compiled)
    keys.fault(key, "holds " + compiled.error().message, "module names, class names, or re: and a regular expression");
  return keys.status();
}

class CompressedReader {
 public:
  CompressedReader(ModelKeys& keys, QuantizationConfig& quantization, std::vector<std::string>& unknown)
      : keys_(keys), quantization_(quantization), unknown_(unknown) {}

  Status read() {
    keys_.optional("format", format_);
    keys_.optional("ignore", quantization_.ignore);
    RETURN_IF_ERROR(check_patterns(keys_, "ignore", quantization_.ignore));
    const json::object* groups = keys_.object("config_groups");
    if (!groups || groups->empty()) keys_.miss("config_groups");
    RETURN_IF_ERROR(keys_.status());
    const ModelKeys all = keys_.nested("config_groups", *groups, "config_groups");
    for (const auto& [name, value] : *groups) {
      if (!value.is_object()) {
        keys_.fault("config_groups", "holds " + shown(value), "an object of objects");
        return keys_.status();
      }
      ModelKeys group = all.nested(name, value.get_object(), "config_group");
      RETURN_IF_ERROR(read_group(group));
    }
    static_cast<QuantizationScheme&>(quantization_) = quantization_.groups.front().scheme;
    return {};
  }

 private:
  Status read_group(ModelKeys& keys) {
    QuantizationConfig::Group group;
    std::string name = format_;
    keys.optional("format", name);
    keys.optional("targets", group.targets);
    if (group.targets.empty()) keys.miss("targets");
    RETURN_IF_ERROR(check_patterns(keys, "targets", group.targets));
    const Format* format = nullptr;
    std::string names;
    for (const Format& known : kFormats) {
      if (known.name == name) format = &known;
      names += (names.empty() ? "" : " or ") + std::string(known.name);
    }
    ModelKeys& where = keys.find("format") ? keys : keys_;
    if (!format) {
      name.empty() ? where.miss("format") : where.refuse("format", in_double_quotes(name), names);
      return where.status();
    }
    const json::object* weights = keys.object("weights");
    if (!weights) keys.miss("weights");
    RETURN_IF_ERROR(keys.status());
    ModelKeys numbers = keys.nested("weights", *weights, "weights");
    numbers.check(unknown_);
    read_weights(numbers, *format, group.scheme);
    RETURN_IF_ERROR(numbers.status());
    keys.check(unknown_);
    if (const json::object* activations = keys.object("input_activations")) {
      ModelKeys inner = keys.nested("input_activations", *activations, "weights");
      read_activations(inner);
      RETURN_IF_ERROR(inner.status());
    }
    quantization_.groups.push_back(std::move(group));
    return keys.status();
  }

  ModelKeys& keys_;
  QuantizationConfig& quantization_;
  std::vector<std::string>& unknown_;
  std::string format_;
};

// Files of dense weights may say that they are.
void check_sparsity(ModelKeys& keys) {
  const json::object* sparsity = keys.object("sparsity_config");
  if (!sparsity || sparsity->empty()) return;
  ModelKeys inner = keys.nested("sparsity_config", *sparsity, "sparsity_config");
  std::string format;
  inner.optional("format", format);
  if (format != "dense")
    keys.fault("sparsity_config",
               fmt::format("is {}, which is not supported: it asks for sparse weights", shown(json::value(*sparsity))),
               "absent, empty or dense", ErrorCode::kUnsupported);
}

}  // namespace

Status read_quantization(ModelKeys& outer, QuantizationConfig& quantization, std::vector<std::string>& unknown) {
  if (!outer.says("quantization_config")) return {};
  const json::object* object = outer.object("quantization_config");
  if (!object) return outer.status();
  ModelKeys keys = outer.nested("quantization_config", *object, "quantization_config");
  std::string method;
  keys.optional("quant_method", method);
  if (method == "awq") {
    read_awq(keys, quantization);
  } else if (method == "fp8") {
    read_fp8(keys, quantization);
  } else if (method == "compressed-tensors") {
    RETURN_IF_ERROR(CompressedReader(keys, quantization, unknown).read());
  } else {
    keys.fault("quant_method",
               method.empty() ? "is missing" : fmt::format("is \"{}\", which is not supported", escaped(method, 60)),
               "awq, fp8 or compressed-tensors", ErrorCode::kUnsupported);
    return keys.status();
  }
  check_sparsity(keys);
  keys.check(unknown);
  keys.optional("modules_to_not_convert", quantization.modules_to_not_convert);
  return keys.status();
}

}  // namespace cachalot
