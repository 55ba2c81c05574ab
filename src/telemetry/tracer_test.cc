#include "telemetry/tracer.h"

#include <gmock/gmock.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <mutex>

#include "http/loopback_test_util.h"

namespace cachalot::telemetry {
namespace {

using testing::HasSubstr;
namespace json = boost::json;

constexpr const char* kParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContext, IsReadAndWrittenAsW3cHasIt) {
  const auto context = parse_traceparent(kParent);
  ASSERT_TRUE(context);
  EXPECT_EQ(context->trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(context->span_id, "00f067aa0ba902b7");
  EXPECT_TRUE(context->is_recorded);
  EXPECT_EQ(to_traceparent(*context), kParent);
  EXPECT_FALSE(parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02")->is_recorded);
  EXPECT_TRUE(parse_traceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more")) << "a later version";
}

TEST(TraceContext, WhatIsNoneIsNotTaken) {
  for (const char* text : {"", "00", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                           "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                           "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
                           "zz-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "00+4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
    EXPECT_FALSE(parse_traceparent(text)) << text;
}

TEST(Span, IsAPartOfWhatTheClientTraces) {
  const auto span = begin_request("llm_request", {{"Traceparent", kParent}});
  ASSERT_TRUE(span);
  EXPECT_EQ(span->context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(span->parent, "00f067aa0ba902b7");
  const Span part = begin_span("queue", Span::Kind::kInternal, span->context);
  EXPECT_EQ(part.parent, span->context.span_id);
  EXPECT_NE(part.context.span_id, span->context.span_id);
  EXPECT_FALSE(begin_request("x", {{"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}}));
  const auto first = begin_request("x", {}), other = begin_request("x", {{"traceparent", "nonsense"}});
  ASSERT_TRUE(first && other);
  EXPECT_EQ(first->parent, "");
  EXPECT_NE(first->context.trace_id, other->context.trace_id);
  EXPECT_TRUE(parse_traceparent(to_traceparent(first->context)));
}

TEST(Span, IsWrittenAsOtlpHasItInJson) {
  Span span = *begin_request("a \xff", {{"traceparent", kParent}});
  span.end = span.begin + std::chrono::milliseconds(1500);
  span.attributes = {{"count", int64_t{3}}, {"seconds", 0.5}, {"text", "t"}};
  span.fail("why");
  const json::value document = json::parse(to_otlp({span}, {{"service.name", "s"}}));
  const json::value& resource = document.at_pointer("/resourceSpans/0");
  EXPECT_EQ(resource.at_pointer("/resource/attributes/0/value/stringValue"), "s");
  const json::value& written = resource.at_pointer("/scopeSpans/0/spans/0");
  EXPECT_EQ(written.at("traceId"), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(written.at("parentSpanId"), "00f067aa0ba902b7");
  EXPECT_EQ(written.at("name"), "a \xEF\xBF\xBD");
  EXPECT_EQ(written.at("kind"), 2);
  EXPECT_EQ(written.at_pointer("/attributes/0/value/intValue"), "3");
  EXPECT_EQ(written.at_pointer("/attributes/1/value/doubleValue"), 0.5);
  EXPECT_EQ(written.at_pointer("/status/code"), 2);
  EXPECT_EQ(written.at_pointer("/status/message"), "why");
  const auto begin = std::stoll(std::string(written.at("startTimeUnixNano").as_string()));
  const auto end = std::stoll(std::string(written.at("endTimeUnixNano").as_string()));
  EXPECT_EQ(end - begin, 1'500'000'000);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  EXPECT_LT(std::abs(begin - std::chrono::nanoseconds(now).count()), 60'000'000'000);
}

// A receiver on this machine.
class TracerTest : public testing::Test {
 protected:
  void SetUp() override {
    server_.route("POST", "/v1/traces", [this](const http::Request& request) {
      const std::lock_guard lock(mutex_);
      EXPECT_EQ(request.headers.find("Content-Type"), "application/json");
      EXPECT_EQ(request.headers.find("key"), "sesame");
      if (status_ == 200)
        num_spans_ += json::parse(request.body).at_pointer("/resourceSpans/0/scopeSpans/0/spans").as_array().size();
      num_asked_++;
      return http::Response::json(status_, "{}");
    });
    ASSERT_TRUE(server_.start());
    const std::string url = "http://127.0.0.1:" + std::to_string(server_.port());
    tracer_ = std::move(*Tracer::create({.endpoint = url, .headers = {{"key", "sesame"}}}, "test"));
  }
  void add(size_t count) {
    for (size_t i = 0; i < count; i++) tracer_->add(*begin_request("span", {}));
  }
  bool comes_true(const std::function<bool()>& condition) {
    return http::eventually([&] {
      const std::lock_guard lock(mutex_);
      return condition();
    });
  }

  std::mutex mutex_;
  int status_ = 200;
  size_t num_spans_ = 0, num_asked_ = 0;
  http::IoThreads threads_{1};
  http::Server server_{threads_, {.host = "127.0.0.1"}};
  std::unique_ptr<Tracer> tracer_;
};

TEST_F(TracerTest, SendsBatchesAndAtTheEndWhatIsLeft) {
  add(Tracer::kBatch + 3);
  EXPECT_TRUE(comes_true([&] { return num_spans_ == Tracer::kBatch + 3; }));
  add(2);
  tracer_.reset();
  EXPECT_TRUE(comes_true([&] { return num_spans_ == Tracer::kBatch + 5; }));
}

TEST_F(TracerTest, HoldsSpansWhileTheReceiverIsAwayAndDropsWhatIsTooMuch) {
  status_ = 503;
  add(Tracer::kMostHeld + 7);
  ASSERT_TRUE(comes_true([&] { return num_asked_ > 0; }));
  EXPECT_THAT(tracer_->render_metrics(), HasSubstr("cachalot:trace_spans_total{state=\"dropped\"} 7\n"));
  {
    const std::lock_guard lock(mutex_);
    status_ = 200;
  }
  EXPECT_TRUE(comes_true([&] { return num_spans_ == Tracer::kMostHeld; }));
}

TEST_F(TracerTest, WhatTheReceiverRefusesIsNotSentAgain) {
  status_ = 400;
  add(3);
  EXPECT_TRUE(comes_true([&] { return num_asked_ == 1; }));
  EXPECT_TRUE(http::eventually([&] {
    return tracer_->render_metrics().find("cachalot:trace_spans_total{state=\"refused\"} 3\n") != std::string::npos;
  }));
}

TEST(Tracer, AsksForAnAddressThatItCanReach) {
  EXPECT_EQ(*Tracer::create({}, "test"), nullptr);
  for (const char* endpoint : {"grpc://localhost:4317", "localhost"}) {
    const auto tracer = Tracer::create({.endpoint = endpoint}, "test");
    ASSERT_FALSE(tracer) << endpoint;
    EXPECT_THAT(tracer.error().message, HasSubstr("http://HOST:4318/v1/traces"));
  }
}

}  // namespace
}  // namespace cachalot::telemetry
