#pragma once

#include <boost/json/value.hpp>

namespace cachalot::openai {

// What a constraint lets through is made narrower than the schema where models would lose their way, and never wider:
// every answer is of the schema as it came.

// What llguidance's formats let through beyond RFC 3339 and RFC 1123, which is what validators look at: February 29 of
// any year, the second 60 of any minute, host names of any length. Values of the schema's own go before.
void bound_formats(boost::json::value& schema);

// An object that names its properties and says nothing of others has these alone, as in vLLM (xgrammar's strict mode):
// a model that may make up more does so until it is cut. Where other parts of the schema speak of the same objects
// (allOf and its kind), all stay as they are.
void close_objects(boost::json::value& schema);

}  // namespace cachalot::openai
