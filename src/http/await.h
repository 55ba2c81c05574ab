#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <utility>

namespace cachalot::http {

// Waits in a coroutine for what a callback is told: `start` gets the callback, which may be called once, on any thread.
// The coroutine goes on on its own executor.
template <class T, class Start>
boost::asio::awaitable<T> await_callback(Start start) {
  namespace asio = boost::asio;
  auto initiate = [](auto handler, Start start) {
    auto shared = std::make_shared<decltype(handler)>(std::move(handler));
    start([shared](T value) {
      asio::post(asio::get_associated_executor(*shared),
                 [shared, value = std::move(value)]() mutable { std::move (*shared)(std::move(value)); });
    });
  };
  return asio::async_initiate<const asio::use_awaitable_t<>, void(T)>(std::move(initiate), asio::use_awaitable,
                                                                      std::move(start));
}

}  // namespace cachalot::http
