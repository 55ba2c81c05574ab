#include "comm/membership/wire.h"

namespace cachalot::control {

std::string Introduction::name() const {
  return Member{.rank = rank, .label = printable(label, 80), .host = printable(host, 80), .pid = pid}.name();
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
  if (!reader.complete() || magic != kMagic) {
    return make_error(ErrorCode::kCorrupt, "'{}' begins no control message", printable(bytes));
  }
  if (header.length > max_length) {
    return make_error(ErrorCode::kCorrupt, "a control message of {} bytes; {} are the limit here", header.length,
                      max_length);
  }
  return header;
}

std::string printable(std::string_view bytes, size_t max_length) {
  std::string text(bytes.substr(0, max_length));
  for (char& character : text) {
    if (character < ' ' || character > '~') character = '.';
  }
  return text;
}

}  // namespace cachalot::control
