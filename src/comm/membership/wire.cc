#include "comm/membership/wire.h"

#include "base/text.h"

namespace cachalot::control {

std::string Introduction::name() const {
  return Member{.rank = rank, .label = label, .host = host, .pid = pid}.name();
}

Result<Introduction> decode_introduction(std::string_view hello) {
  Reader reader(hello);
  Introduction introduction;
  reader(introduction);
  if (!reader.sound()) return make_error(ErrorCode::kCorrupt, "a greeting of {} bytes is cut", hello.size());
  return introduction;
}

std::string encode_header(const FrameHeader& header) {
  Writer writer;
  writer(kMagic, header.protocol, header.type, header.epoch, header.length);
  return writer.take();
}

Result<FrameHeader> decode_header(std::string_view bytes, size_t max_length) {
  uint32_t magic = 0;
  FrameHeader header;
  Reader reader(bytes);
  reader(magic, header.protocol, header.type, header.epoch, header.length);
  if (!reader.complete() || magic != kMagic)
    return make_error(ErrorCode::kCorrupt, "{} begins no control message", quoted(bytes));
  if (header.length > max_length) {
    return make_error(ErrorCode::kCorrupt, "a control message of {} bytes; {} are the limit here", header.length,
                      max_length);
  }
  return header;
}

}  // namespace cachalot::control
